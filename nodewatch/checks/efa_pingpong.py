"""An EFA ping-pong between two ends that failed, or lost messages.

No source publishes what bandwidth or latency to expect of it, so both stand in the evidence and neither is judged
unless a site sets a floor. Most failures between machines are a security group that does not name itself in both
directions: the connection over ENA works, everything over EFA times out. It is the site's configuration and not the
machine, so a human looks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from nodewatch.checks._api import Phase, check
from nodewatch.errors import SensorError
from nodewatch.model.fabric_samples import FiPingpongSample
from nodewatch.model.health import Finding, Remedy, Severity

_SECURITY_GROUP = (
    "messages over EFA got no answer: most often the security group lacks a rule, in and out, for all traffic "
    "of itself (the group's own id; 0.0.0.0/0 does not admit EFA)"
)
_SYMPTOMS: tuple[tuple[str, str, str, Severity, Remedy], ...] = (
    (
        r"-61\b|no data available",
        "efa.no_provider",
        "libfabric offers no EFA: driver, library, or rights on the device",
        Severity.DEGRADED,
        Remedy.RESTART_SERVICE,
    ),
    (
        r"cannot allocate|-12\b|memlock",
        "efa.memlock",
        "memory could not be registered: the limit on locked memory is too low (ulimit -l)",
        Severity.WARN,
        Remedy.HUMAN,
    ),
    (
        r"refused|-111\b",
        "efa.pingpong_failed",
        "the other end was not listening: its fi_pingpong was not started, or a firewall rejects the control port",
        Severity.WARN,
        Remedy.HUMAN,
    ),
    (
        r"timed? ?out|timeout|-110\b|unresponsive|unreachable|no route",
        "efa.pingpong_failed",
        _SECURITY_GROUP,
        Severity.DEGRADED,
        Remedy.HUMAN,
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """0 judges nothing: no source gives numbers that hold for an instance type."""

    least_mb_per_s: float = 0.0
    """At the largest message size."""
    most_us: float = 0.0
    """At the smallest."""


@check(reads=FiPingpongSample, phases=Phase.DEEP, every_s=3600.0, thresholds=Thresholds)
def efa_pingpong(sample: FiPingpongSample, thresholds: Thresholds) -> Iterator[Finding]:
    """`efa.pingpong_failed`, `efa.no_provider`, `efa.memlock`, `efa.messages_lost`, `efa.pingpong_slow`.

    Raises SensorError for a table that was cut off without an error of the tool.
    """
    measured = _measured(sample)
    if sample.errors:
        yield _failure(sample.errors, measured)
        return
    if sample.incomplete is not None:
        raise SensorError(f"the table of fi_pingpong is not whole ({sample.incomplete}): run it again")
    if not sample.rows:
        raise SensorError("fi_pingpong measured nothing: run it again")
    if not all(row.all_acknowledged for row in sample.rows):
        yield _finding("efa.messages_lost", Severity.DEGRADED, Remedy.HUMAN, measured)
    largest = max(row.size for row in sample.rows)
    smallest = min(row.size for row in sample.rows)
    is_slow = any(row.bandwidth < thresholds.least_mb_per_s for row in sample.rows if row.size == largest)
    is_late = any(row.latency_us > thresholds.most_us > 0 for row in sample.rows if row.size == smallest)
    if is_slow or is_late:
        limits = {"least_mb_per_s": thresholds.least_mb_per_s, "most_us": thresholds.most_us}
        yield _finding("efa.pingpong_slow", Severity.DEGRADED, Remedy.HUMAN, {**measured, **limits})


def _failure(errors: tuple[str, ...], measured: dict[str, object]) -> Finding:
    for pattern, fault, means, severity, remedy in _SYMPTOMS:
        said = [line for line in errors if re.search(pattern, line, re.IGNORECASE)]
        if said:
            return _finding(fault, severity, remedy, {"said": said[:5], "means": means, **measured})
    return _finding("efa.pingpong_failed", Severity.DEGRADED, Remedy.HUMAN, {"said": list(errors[:5]), **measured})


def _measured(sample: FiPingpongSample) -> dict[str, object]:
    if not sample.rows:
        return {"source": "fi_pingpong"}
    largest = max(sample.rows, key=lambda row: row.size)
    smallest = min(sample.rows, key=lambda row: row.size)
    return {
        "largest_bytes": largest.size,
        "mb_per_s": largest.bandwidth,
        "smallest_bytes": smallest.size,
        "latency_us": smallest.latency_us,
        "source": "fi_pingpong",
    }


def _finding(fault: str, severity: Severity, remedy: Remedy, evidence: dict[str, object]) -> Finding:
    return Finding(fault=fault, subject="efa", severity=severity, remedy=remedy, evidence=evidence)
