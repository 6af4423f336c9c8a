"""Programs that wait in the kernel for minutes, and dead ones that pile up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nodewatch.checks._api import Phase, check
from nodewatch.model.health import Finding, Remedy, Severity
from nodewatch.model.host_samples import ProcessSample


@dataclass(frozen=True, slots=True, kw_only=True)
class HostBlockedProcessesThresholds:
    """When waiting is being stuck, and when many are too many."""

    blocked_s: float = 300.0
    """The kernel itself speaks of a hung task after 120 s (kernel.hung_task_timeout_secs); a server that fails over is
    back in less than 300."""
    zombies: int = 500
    """A shell or a launcher that is slow leaves a few; a parent that never collects leaves hundreds (slurmd's limit on
    processes is often 4096)."""


@check(reads=ProcessSample, phases=Phase.PERIODIC, every_s=60.0, thresholds=HostBlockedProcessesThresholds)
def host_blocked_processes(sample: ProcessSample, thresholds: HostBlockedProcessesThresholds) -> Iterator[Finding]:
    """`host.processes_blocked` and `host.zombies`, both warnings: what they wait for has a check of its own."""
    stuck = sorted((p for p in sample.blocked if p.seconds >= thresholds.blocked_s), key=lambda p: (-p.seconds, p.pid))
    if stuck:
        yield Finding(
            fault="host.processes_blocked",
            subject="processes",
            severity=Severity.WARN,
            remedy=Remedy.NONE,
            evidence={
                "count": len(stuck),
                "longest_s": round(stuck[0].seconds),
                "processes": [f"{process.name} ({process.pid})" for process in stuck[:8]],
            },
        )
    if sample.zombies >= thresholds.zombies:
        yield Finding(
            fault="host.zombies",
            subject="processes",
            severity=Severity.WARN,
            remedy=Remedy.NONE,
            evidence={"zombies": sample.zombies, "processes": sample.processes},
        )
