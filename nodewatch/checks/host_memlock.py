"""The limit on locked memory that slurmd passes on to jobs, on a machine with EFA or InfiniBand.

Such a device reads and writes memory by itself, so each buffer is locked. Under a low limit libfabric and NCCL fail with
`cannot allocate memory (-12)`, which looks like a broken machine and is a line in a unit file. Whatever a user's own limit is,
a job's cannot be above slurmd's (Slurm FAQ, rlimit).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nodewatch.checks._api import Phase, check
from nodewatch.model.health import Finding, Remedy, Severity
from nodewatch.model.network_samples import MemlockSample


@dataclass(frozen=True, slots=True, kw_only=True)
class HostMemlockThresholds:
    """The least limit that is no trouble."""

    least_gib: float = 16.0
    """AWS sets unlimited (EFA user guide); a loopback over EFA needs 16 GiB at least (field notes 3.4)."""


@check(reads=MemlockSample, phases=Phase.PERIODIC, every_s=300.0, thresholds=HostMemlockThresholds)
def host_memlock(sample: MemlockSample, thresholds: HostMemlockThresholds) -> Iterator[Finding]:
    """`host.memlock_low`, a warning: a human has to set LimitMEMLOCK=infinity for slurmd."""
    if sample.soft is None or sample.soft >= thresholds.least_gib * 2**30:
        return
    yield Finding(
        fault="host.memlock_low",
        subject=sample.daemon,
        severity=Severity.WARN,
        remedy=Remedy.HUMAN,
        evidence={
            "pid": sample.pid,
            "soft_bytes": sample.soft,
            "hard_bytes": sample.hard if sample.hard is not None else "unlimited",
            "least_gib": thresholds.least_gib,
            "try": f"LimitMEMLOCK=infinity in {sample.daemon}'s unit, and PropagateResourceLimitsExcept=MEMLOCK in slurm.conf",
            "source": f"/proc/{sample.pid}/limits",
        },
    )
