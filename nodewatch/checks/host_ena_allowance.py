"""Network traffic that EC2 held back because it exceeded what the instance type allows.

The ENA driver counts packets that were queued or dropped beyond the allowance for bandwidth, packets per second, tracked
connections, and local services (DNS, metadata, time). None of it is a fault of the machine and another of the same type
has the same limits, so it warns: a job that seems to hang on the network, or loses name lookups, has its explanation here.
EFA traffic is not counted among it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nodewatch.checks._api import Phase, check
from nodewatch.errors import SensorError
from nodewatch.model.health import Finding, Remedy, Severity
from nodewatch.model.network_samples import EnaInterface, EnaSample

_SOURCE = "AWS: Monitor network performance for ENA settings on your EC2 instance (ethtool -S)"
_MEANS = {
    "bw_in_allowance_exceeded": "inbound bandwidth: packets were queued or dropped",
    "bw_out_allowance_exceeded": "outbound bandwidth: packets were queued or dropped",
    "pps_allowance_exceeded": "packets per second, in both directions: packets were queued or dropped",
    "conntrack_allowance_exceeded": "tracked connections: no new connection could be made and packets were dropped",
    "linklocal_allowance_exceeded": "1024 packets per second to DNS, metadata and time service: packets were dropped",
}
_QUEUED = frozenset({"bw_in_allowance_exceeded", "bw_out_allowance_exceeded", "pps_allowance_exceeded"})


@dataclass(frozen=True, slots=True, kw_only=True)
class HostEnaAllowanceThresholds:
    """Packets per second between two readings above which it is worth a word."""

    queued_per_s: float = 100.0
    """Bandwidth and packet rate. Ours: EKS's node monitoring tells of each one, but a queue that fills for an instant is
    how a fast network works; a hundred in each second of a minute is traffic that is held back all the time."""
    dropped_per_s: float = 0.0
    """Connections and local services: each is a packet that was lost, and a lookup or a connection with it."""


@check(reads=EnaSample, phases=Phase.PERIODIC, every_s=60.0, thresholds=HostEnaAllowanceThresholds)
def host_ena_allowance(sample: EnaSample, thresholds: HostEnaAllowanceThresholds) -> Iterator[Finding]:
    """`host.ena_allowance` per interface and counter, a warning. A counter that went back (a reset) starts anew.

    A driver without these counters (older than 2.2.10) is no finding. Raises SensorError when an interface that had
    counters gives none any more and nothing else was found.
    """
    if sample.previous is None or not sample.interval_s:
        return
    before = {item.name: item for item in sample.previous}
    clean = True
    unread: str | None = None
    for item in sample.interfaces:
        then = before.get(item.name)
        if then is None:
            continue
        if then.allowances and not item.allowances:
            unread = unread or f"{item.name} gives no counters any more ({item.error})"
        for finding in _judge(item, then, sample.interval_s, thresholds):
            clean = False
            yield finding
    if clean and unread is not None:
        raise SensorError(f"{unread}: look for ena in the kernel log")


def _judge(
    now: EnaInterface, then: EnaInterface, seconds: float, thresholds: HostEnaAllowanceThresholds
) -> Iterator[Finding]:
    for counter, means in _MEANS.items():
        rise = now.allowances.get(counter, 0) - then.allowances.get(counter, now.allowances.get(counter, 0))
        is_queued = counter in _QUEUED
        if rise <= 0 or rise / seconds <= (thresholds.queued_per_s if is_queued else thresholds.dropped_per_s):
            continue
        yield Finding(
            fault="host.ena_allowance",
            subject=f"{now.name} {counter}",
            severity=Severity.WARN,
            # More bandwidth is another instance type; too many connections or lookups are a program's, or the site's.
            remedy=Remedy.NONE if is_queued else Remedy.HUMAN,
            evidence={
                "counter": counter,
                "rise": rise,
                "seconds": seconds,
                "per_s": round(rise / seconds, 3),
                "means": f"the instance type's allowance was exceeded for {means}",
                "source": _SOURCE,
            },
        )
