"""The table of DCGM's severities, error ids and exit codes."""

from __future__ import annotations

import pytest

from nodewatch.knowledge.dcgm import TABLE, exit_meaning, judge
from nodewatch.model.health import Remedy, Severity


@pytest.mark.parametrize(
    ("code", "means"),
    [
        (0, "pass"),
        (126, "deploy"),
        (127, "deploy"),
        (189, "unknown"),
        (203, "unknown"),
        (204, "deploy"),
        (205, "found"),
        (217, "unknown"),
        (226, "found"),
        (235, "unknown"),
        (245, "unknown"),
        (-9, "unknown"),
        (1, "unknown"),
        (99, "unknown"),
    ],
)
def test_exit_codes(code: int, means: str) -> None:
    meaning = exit_meaning(code)
    assert (meaning.code, meaning.means) == (code, means)
    assert meaning.why


@pytest.mark.parametrize(
    ("error_id", "severity", "category", "expected"),
    [
        # Field payload: persistence mode off on every GPU is configuration.
        (29, 5, 8, (Severity.WARN, Remedy.RESTART_SERVICE)),
        (29, None, None, (Severity.WARN, Remedy.RESTART_SERVICE)),
        (80, 2, 10, (Severity.FATAL, Remedy.REPLACE)),
        (85, 6, 10, (Severity.DEGRADED, Remedy.RESET_GPU)),
        (81, 2, 5, (Severity.FATAL, Remedy.RESET_GPU)),
        (120, 2, 15, (Severity.FATAL, Remedy.REBOOT)),
        (126, 6, None, (Severity.FATAL, Remedy.REBOOT)),
        (101, 4, 5, (Severity.WARN, Remedy.HUMAN)),
        (52, 2, 10, (Severity.FATAL, Remedy.REPLACE)),
        (62, 4, 1, (Severity.DEGRADED, Remedy.RESET_GPU)),
        (40, 1, 9, (Severity.DEGRADED, Remedy.HUMAN)),
        (5, 1, 10, (Severity.WARN, Remedy.NONE)),
        # The tool's own trouble is no fault of the GPU.
        (22, 4, 4, (Severity.WARN, Remedy.RESTART_SERVICE)),
        (67, 4, 16, (Severity.WARN, Remedy.RESTART_SERVICE)),
        (91, 4, 7, (Severity.WARN, Remedy.RESTART_SERVICE)),
        (95, 2, 7, (Severity.FATAL, Remedy.REPLACE)),
        # The document's severity counts where the id is news to us.
        (999, 2, 10, (Severity.FATAL, Remedy.REPLACE)),
        (999, 5, None, (Severity.WARN, Remedy.RESTART_SERVICE)),
        (None, 6, None, (Severity.DEGRADED, Remedy.RESET_GPU)),
        (None, 0, None, (Severity.DEGRADED, Remedy.HUMAN)),
        (52, 77, None, (Severity.FATAL, Remedy.REPLACE)),
    ],
)
def test_errors(
    error_id: int | None, severity: int | None, category: int | None, expected: tuple[Severity, Remedy]
) -> None:
    judgement = judge(error_id, severity, category)
    assert judgement is not None
    assert (judgement.severity, judgement.remedy) == expected
    assert judgement.why


def test_nothing_known_is_no_judgement() -> None:
    assert judge(None, None) is None
    assert judge(999, None) is None
    assert judge(999, 42) is None


def test_configuration_is_never_more_than_a_warning() -> None:
    for error_id in TABLE.errors:
        for severity in (None, *TABLE.severities):
            judgement = judge(error_id, severity)
            assert judgement is not None
            assert not judgement.is_configuration or judgement.severity <= Severity.WARN


def test_names_are_unique() -> None:
    names = [row.name for row in TABLE.errors.values()]
    assert len(names) == len(set(names)) > 100
