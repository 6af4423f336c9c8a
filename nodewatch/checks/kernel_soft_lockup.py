"""CPUs that stopped scheduling: soft and hard lockups, and stalls of RCU."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from nodewatch.checks._api import Phase, check
from nodewatch.checks._kernel import Line, hits
from nodewatch.model.health import Finding, Remedy, Severity
from nodewatch.model.samples import KmsgSample

_LINES = (
    Line(
        fault="host.soft_lockup",
        pattern=re.compile(
            r"BUG: soft lockup - (?P<subject>CPU#\d{1,5}) stuck for (?P<seconds>\d{1,6})s! \[(?P<task>.{1,40})\]"
        ),
        severity=Severity.WARN,
    ),
    Line(
        fault="host.hard_lockup",
        pattern=re.compile(r"Watchdog detected hard LOCKUP on cpu (?P<subject>\d{1,5})|BUG: .{0,20}hard LOCKUP"),
        severity=Severity.DEGRADED,
        remedy=Remedy.REBOOT,
    ),
    Line(
        fault="host.rcu_stall",
        pattern=re.compile(
            r"rcu: INFO: \S+ (?:self-)?detected (?:expedited )?stalls? on CPU|INFO: rcu_\w+ (?:self-)?detected stalls? on CPU"
        ),
        severity=Severity.WARN,
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelSoftLockupThresholds:
    """When a lockup is more than a hiccup."""

    stuck_s: int = 60
    """A CPU stuck for so many seconds is broken. The kernel first says so after 20 (Documentation/admin-guide/
    lockup-watchdogs: 2 x watchdog_thresh of 10 s), which a hypervisor that takes the CPU away also causes."""


@check(reads=KmsgSample, phases=Phase.PERIODIC, lasting=True, thresholds=KernelSoftLockupThresholds)
def kernel_soft_lockup(sample: KmsgSample, thresholds: KernelSoftLockupThresholds) -> Iterator[Finding]:
    """`host.soft_lockup` on the CPU (degraded, reboot from `stuck_s`), `host.hard_lockup`, `host.rcu_stall` (a warning)."""
    for hit in hits(sample, ("soft lockup", "hard LOCKUP", " stall"), _LINES):
        stuck = [int(found[1]) for record in hit.records if (found := re.search(r"stuck for (\d{1,6})s!", record.text))]
        if stuck and max(stuck) >= thresholds.stuck_s:
            yield hit.finding(Severity.DEGRADED, Remedy.REBOOT, longest_s=max(stuck))
        else:
            yield hit.finding()
