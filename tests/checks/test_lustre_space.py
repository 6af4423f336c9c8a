"""lustre_space: whole file systems and single targets, space and inodes."""

from __future__ import annotations

import pytest

from nodewatch.checks.lustre_space import Thresholds, lustre_space
from nodewatch.model.health import Severity
from nodewatch.model.storage_samples import LustreSample, LustreUsage


@pytest.mark.parametrize(
    ("percent", "is_summary", "is_inodes", "expected"),
    [
        (89, True, False, []),
        (90, True, False, [("filesystem.space", "/fsx", Severity.WARN)]),
        (99, True, False, [("filesystem.space", "/fsx", Severity.DEGRADED)]),
        (99, True, True, [("filesystem.inodes", "/fsx", Severity.DEGRADED)]),
        (94, False, False, []),
        (100, False, False, [("filesystem.space", "OST0", Severity.WARN)]),
    ],
)
def test_usage(percent: int, is_summary: bool, is_inodes: bool, expected: list[object]) -> None:
    usage = LustreUsage(name="OST0", mount="/fsx", percent=percent, is_inodes=is_inodes, is_summary=is_summary)
    findings = list(lustre_space(LustreSample(usages=(usage,)), Thresholds()))
    assert [(f.fault, f.subject, f.severity) for f in findings] == expected
    assert all(f.evidence["percent"] == percent for f in findings)
