"""dcgm_version: releases that fit together, and some that do not."""

from __future__ import annotations

import pytest

from nodewatch.checks._api import load_checks
from nodewatch.model.gpu_samples import DcgmEngineSample
from nodewatch.model.health import Remedy, Severity


@pytest.mark.parametrize(
    ("installed", "engine", "driver", "expected"),
    [
        ("3.3.9", "3.3.9", "550.144.03", []),
        ("4.4.1", "4.4.1", "580.65.06", []),
        (None, None, None, []),
        ("4.4.1", None, "580.65.06", []),
        ("?", "?", "?", []),
        ("4.4.1", "4.2.0", "570.1", [("nv-hostengine", Remedy.RESTART_SERVICE)]),
        ("3.3.9", "3.3.9", "580.65.06", [("driver", Remedy.HUMAN)]),
        ("3.3.9", None, "581", [("driver", Remedy.HUMAN)]),
        ("4.4.1", "3.3.9", "580.65.06", [("nv-hostengine", Remedy.RESTART_SERVICE), ("driver", Remedy.HUMAN)]),
    ],
)
def test_releases(
    installed: str | None, engine: str | None, driver: str | None, expected: list[tuple[str, Remedy]]
) -> None:
    sample = DcgmEngineSample(is_answering=True, version=installed, engine_version=engine, driver_version=driver)
    findings = load_checks()["dcgm_version"].run(sample)
    assert [(finding.subject, finding.remedy) for finding in findings] == expected
    assert all((f.fault, f.severity) == ("config.dcgm_mismatch", Severity.WARN) for f in findings)
