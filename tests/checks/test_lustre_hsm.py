"""lustre_hsm: files whose content is elsewhere, or nowhere."""

from __future__ import annotations

import pytest

from nodewatch.checks._api import load_checks
from nodewatch.model.health import Remedy, Severity
from nodewatch.model.storage_samples import HsmFile, LustreSample


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ((), []),
        (("exists", "archived"), []),
        (("exists", "dirty", "archived"), []),
        (("released", "exists", "archived"), [("filesystem.hsm_released", Severity.INFO, Remedy.NONE)]),
        (("released", "exists", "lost_from_hsm"), [("filesystem.hsm_lost", Severity.WARN, Remedy.HUMAN)]),
    ],
)
def test_flags(flags: tuple[str, ...], expected: list[tuple[str, Severity, Remedy]]) -> None:
    sample = LustreSample(hsm=(HsmFile(path="/fsx/step-1", flags=frozenset(flags)),))
    findings = load_checks()["lustre_hsm"].run(sample)
    assert [(finding.fault, finding.severity, finding.remedy) for finding in findings] == expected
    assert all(finding.subject == "/fsx/step-1" for finding in findings)
