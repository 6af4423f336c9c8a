"""The exit code of `dcgmi diag` beside what it printed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nodewatch.checks.dcgm_coverage import dcgm_coverage
from nodewatch.checks.dcgm_diag import dcgm_diag
from nodewatch.errors import SensorError
from nodewatch.sensors.dcgm_diag import of_command

RECORDED = Path(__file__).parent / "recorded" / "dcgm"
GOOD = (RECORDED / "h100_pass_r2.json").read_text(encoding="utf-8")
BAD = (RECORDED / "h200_remap_failed.json").read_text(encoding="utf-8")
CONFIG = (RECORDED / "h100_persistence_off.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("code", "stdout", "severities"),
    [(0, GOOD, []), (205, BAD, ["fatal"]), (226, CONFIG, ["warn"] * 8), (245, BAD, ["fatal"]), (0, BAD, ["fatal"])],
)
def test_runs_that_prove_something(code: int, stdout: str, severities: list[str]) -> None:
    assert [finding.severity.word for finding in dcgm_diag(of_command(code, stdout))] == severities


@pytest.mark.parametrize("code", [226, 205, 245, 217, 203, 189, 235, -9, 1, 77])
def test_a_run_that_ended_badly_is_no_pass(code: int) -> None:
    with pytest.raises(SensorError):
        dcgm_coverage(of_command(code, GOOD))


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (126, "mend the installation"),
        (127, "mend the installation"),
        (204, "install it"),
        (217, "two at once are refused"),
        (235, "restart nv-hostengine"),
        (-9, "signal"),
        (42, "in no table"),
    ],
)
def test_without_a_document_the_code_says_why(code: int, words: str) -> None:
    with pytest.raises(SensorError, match=words):
        of_command(code, "", "something on standard error")


def test_a_good_exit_without_a_document_is_unknown() -> None:
    with pytest.raises(SensorError):
        of_command(0, json.dumps({"a": 1}))
