"""host_space: low and full file systems."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewatch.checks.host_space import HostSpaceThresholds, host_space
from nodewatch.model.host_samples import Space, SpaceSample

GIB = 1 << 30


def judge(
    path: str, free: float, *, size: float = 100.0, inodes: int = 1000, free_inodes: int = 500
) -> list[tuple[str, ...]]:
    space = Space(path=path, bytes=int(size * GIB), free_bytes=int(free * GIB), inodes=inodes, free_inodes=free_inodes)
    found = host_space(SpaceSample(spaces=(space,)), HostSpaceThresholds())
    return [(finding.fault, finding.subject, finding.severity.word, finding.remedy.word) for finding in found]


@pytest.mark.parametrize(
    ("path", "free", "inodes", "free_inodes", "expected"),
    [
        ("/", 50.0, 1000, 500, []),
        ("/", 4.9, 1000, 500, [("host.space_low", "/", "warn", "none")]),
        ("/", 0.1, 1000, 500, [("host.space_low", "/", "degraded", "human")]),
        ("/", 0.4, 1000, 500, [("host.space_low", "/", "warn", "none")]),
        ("/tmp", 0.0, 1000, 500, [("host.space_low", "/tmp", "warn", "none")]),
        ("/dev/shm", 0.0, 0, 0, [("host.space_low", "/dev/shm", "warn", "none")]),
        ("/var", 50.0, 1000, 40, [("host.inodes_low", "/var", "warn", "none")]),
        ("/var", 50.0, 1000, 1, [("host.inodes_low", "/var", "degraded", "human")]),
        ("/var", 50.0, 0, 0, []),
    ],
)
def test_room(path: str, free: float, inodes: int, free_inodes: int, expected: list[tuple[str, ...]]) -> None:
    assert judge(path, free, inodes=inodes, free_inodes=free_inodes) == expected


def test_a_small_file_system_is_judged_by_its_share_and_a_huge_one_by_its_size_too() -> None:
    assert judge("/", 1.0, size=30_000.0) == [("host.space_low", "/", "warn", "none")]


@given(st.integers(0, 2**60), st.integers(0, 2**60), st.integers(0, 2**40), st.integers(0, 2**40))
def test_no_numbers_raise(size: int, free: int, inodes: int, free_inodes: int) -> None:
    space = Space(path="/", bytes=size, free_bytes=free, inodes=inodes, free_inodes=free_inodes)
    list(host_space(SpaceSample(spaces=(space,)), HostSpaceThresholds()))
