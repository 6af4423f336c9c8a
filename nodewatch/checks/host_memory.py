"""The host's memory: less than the instance type has, or hardly any left."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nodewatch.checks._api import Phase, check
from nodewatch.knowledge.instance_types import TABLE
from nodewatch.model.health import Finding, Remedy, Severity
from nodewatch.model.host_samples import HostSample


@dataclass(frozen=True, slots=True, kw_only=True)
class HostMemoryThresholds:
    """Shares of the memory, from 0 to 1."""

    missing_below: float = 0.9
    """Less of the type's memory than this is a missing part: firmware, kernel and crash kernel keep 2 to 5 % (MemTotal of a
    p5.48xlarge is 2.0 of 2.147 TB), and one of 16 or 32 modules is 3 to 6 % on top."""
    low_below: float = 0.02
    """Less available than this is a warning: it is where the kernel's killer soon begins to choose (vm.min_free_kbytes is
    below 1 % on such machines)."""

    def __post_init__(self) -> None:
        for name in ("missing_below", "low_below"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: use a share from 0 to 1")


@check(reads=HostSample, phases=Phase.PERIODIC | Phase.DEEP, every_s=30.0, thresholds=HostMemoryThresholds)
def host_memory(sample: HostSample, thresholds: HostMemoryThresholds) -> Iterator[Finding]:
    """`host.memory_missing` (degraded, reboot) on a machine that proves its type, `host.memory_low` (a warning)."""
    row = TABLE.get(sample.instance_type)
    if row is not None and row.memory_gib and sample.memory_bytes < thresholds.missing_below * (row.memory_gib << 30):
        yield Finding(
            fault="host.memory_missing",
            subject="memory",
            severity=Severity.DEGRADED,
            remedy=Remedy.REBOOT,
            evidence={
                "gib": round(sample.memory_bytes / 2**30, 1),
                "expected_gib": row.memory_gib,
                "instance_type": sample.instance_type,
            },
        )
    if sample.memory_bytes and sample.available_bytes < thresholds.low_below * sample.memory_bytes:
        yield Finding(
            fault="host.memory_low",
            subject="memory",
            severity=Severity.WARN,
            remedy=Remedy.NONE,
            evidence={
                "available_mib": sample.available_bytes >> 20,
                "share": round(sample.available_bytes / sample.memory_bytes, 4),
            },
        )
