"""Shared memory (/dev/shm) that is missing or too small for programs that talk to each other through it.

NCCL and data loaders of a job put their buffers there; a file system too small for them ends a job with a bus error. How full
it is stands under host_space.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nodewatch.checks._api import Phase, check
from nodewatch.model.health import Finding, Remedy, Severity
from nodewatch.model.host_samples import SpaceSample

_PATH = "/dev/shm"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostShmThresholds:
    """MiB."""

    least_mib: int = 1024
    """What NCCL's user guide gives a container (troubleshooting, shared memory: `--shm-size=1g`); Linux gives half of the
    memory."""


@check(reads=SpaceSample, phases=Phase.PERIODIC | Phase.DEEP, every_s=300.0, thresholds=HostShmThresholds)
def host_shm(sample: SpaceSample, thresholds: HostShmThresholds) -> Iterator[Finding]:
    """`config.shm_small`, a warning for a human: no file system of its own, or a small one."""
    space = next((space for space in sample.spaces if space.path == _PATH), None)
    if space is None or space.bytes < thresholds.least_mib << 20:
        yield Finding(
            fault="config.shm_small",
            subject=_PATH,
            severity=Severity.WARN,
            remedy=Remedy.HUMAN,
            evidence={
                "mib": None if space is None else space.bytes >> 20,
                "least_mib": thresholds.least_mib,
                "source": "statvfs",
            },
        )
