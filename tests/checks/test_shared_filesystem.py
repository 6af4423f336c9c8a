"""shared_filesystem: not mounted, no answer, an error for an answer."""

from __future__ import annotations

import pytest

from nodewatch.checks.shared_filesystem import shared_filesystem
from nodewatch.model.health import Remedy, Severity
from nodewatch.model.samples import MountProbe, MountSample

NOT_MOUNTED = ("filesystem.not_mounted", Severity.FATAL, Remedy.RESTART_SERVICE)
HUNG = ("filesystem.hung", Severity.DEGRADED, Remedy.HUMAN)
ERROR = ("filesystem.error", Severity.DEGRADED, Remedy.HUMAN)


@pytest.mark.parametrize(
    ("is_mounted", "answered", "error", "expected"),
    [
        (True, True, None, []),
        (False, False, None, [NOT_MOUNTED]),
        (True, False, None, [HUNG]),
        (True, True, "Stale file handle", [ERROR]),
    ],
)
def test_mounts(is_mounted: bool, answered: bool, error: str | None, expected: list[object]) -> None:
    probe = MountProbe(path="/fsx", is_mounted=is_mounted, answered=answered, seconds=12.3456, error=error)
    well = MountProbe(path="/home", is_mounted=True, answered=True, seconds=0.1)
    findings = list(shared_filesystem(MountSample(mounts=(well, probe))))
    assert [(f.fault, f.severity, f.remedy) for f in findings] == expected
    for finding in findings:
        assert (finding.subject, finding.family) == ("/fsx", "filesystem")
        assert finding.evidence["seconds"] == 12.346
