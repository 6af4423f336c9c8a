"""host_shm: shared memory that is large enough, small, or missing."""

from __future__ import annotations

import pytest

from nodewatch.checks._api import load_checks
from nodewatch.model.health import Remedy, Severity
from nodewatch.model.host_samples import Space, SpaceSample


def space(path: str, mib: int) -> Space:
    return Space(path=path, bytes=mib << 20, free_bytes=0, inodes=0, free_inodes=0)


@pytest.mark.parametrize(
    ("spaces", "is_small"),
    [
        ((space("/", 10), space("/dev/shm", 1024)), False),
        ((space("/", 99999), space("/dev/shm", 64)), True),
        ((space("/", 99999),), True),
    ],
)
def test_size(spaces: tuple[Space, ...], is_small: bool) -> None:
    findings = load_checks()["host_shm"].run(SpaceSample(spaces=spaces))
    expected = [("config.shm_small", Severity.WARN, Remedy.HUMAN)] if is_small else []
    assert [(finding.fault, finding.severity, finding.remedy) for finding in findings] == expected
