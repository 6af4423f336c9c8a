"""Room on the file systems that every node needs: root, /var, /tmp and shared memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nodewatch.checks._api import Phase, check
from nodewatch.model.health import Finding, Remedy, Severity
from nodewatch.model.host_samples import Space, SpaceSample


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSpaceThresholds:
    """Shares that are left, from 0 to 1, and the size below which a share counts at all."""

    low_below: float = 0.05
    """A warning: 5 % is what ext4 keeps for root by default (mke2fs -m), below it programs of users are refused."""
    full_below: float = 0.005
    """Degraded on a file system of `needed_by_slurm`: half a per cent and less than `full_mib`."""
    full_mib: int = 200
    """slurmd needs room for a job's script and its credentials; 200 MiB last for minutes."""
    needed_by_slurm: tuple[str, ...] = ("/", "/var")
    """Where slurmd, munge and the journal write. What jobs fill by themselves (/tmp, /dev/shm) is a warning only."""


@check(reads=SpaceSample, phases=Phase.PERIODIC | Phase.DEEP, every_s=60.0, thresholds=HostSpaceThresholds)
def host_space(sample: SpaceSample, thresholds: HostSpaceThresholds) -> Iterator[Finding]:
    """`host.space_low` and `host.inodes_low` on the path: a warning, degraded (human) where Slurm can write no more."""
    for space in sample.spaces:
        yield from _bytes(space, thresholds)
        yield from _inodes(space, thresholds)


def _bytes(space: Space, thresholds: HostSpaceThresholds) -> Iterator[Finding]:
    share = space.free_bytes / space.bytes if space.bytes else 1.0
    if share >= thresholds.low_below:
        return
    is_full = share < thresholds.full_below and space.free_bytes < thresholds.full_mib << 20
    yield _finding("host.space_low", space, is_full, thresholds, free_mib=space.free_bytes >> 20, share=round(share, 4))


def _inodes(space: Space, thresholds: HostSpaceThresholds) -> Iterator[Finding]:
    # btrfs, and tmpfs without a limit, have no fixed number.
    if not space.inodes:
        return
    share = space.free_inodes / space.inodes
    if share < thresholds.low_below:
        is_full = share < thresholds.full_below
        yield _finding("host.inodes_low", space, is_full, thresholds, free=space.free_inodes, share=round(share, 4))


def _finding(fault: str, space: Space, is_full: bool, thresholds: HostSpaceThresholds, **evidence: float) -> Finding:
    is_fault = is_full and space.path in thresholds.needed_by_slurm
    return Finding(
        fault=fault,
        subject=space.path,
        severity=Severity.DEGRADED if is_fault else Severity.WARN,
        # No reboot makes room: somebody has to delete something.
        remedy=Remedy.HUMAN if is_fault else Remedy.NONE,
        evidence=evidence,
    )
