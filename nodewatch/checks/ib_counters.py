"""InfiniBand and RoCE error counters that rise.

Judged is the rise between two readings. On links of 200 Gb/s and more, broken symbols are a physical certainty and are
corrected on the way, so only their rate says anything. A counter that has reached the largest value it can hold stands
still and is noted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nodewatch.checks._api import Phase, check
from nodewatch.errors import SensorError
from nodewatch.knowledge import efa
from nodewatch.model.fabric_samples import FabricPort, IbSample
from nodewatch.model.health import Finding, Remedy, Severity

_FULL = {
    "symbol_error": 65535,
    "port_rcv_errors": 65535,
    "port_xmit_discards": 65535,
    "link_downed": 255,
    "link_error_recovery": 255,
}
"""What the classic counters can hold: InfiniBand specification, PortCounters."""
_OLD_NAMES = {
    "local_link_integrity": "local_link_integrity_errors",
    "excessive_buffer_overrun": "excessive_buffer_overrun_errors",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """Rates per second above which a counter is a fault; 0 for the first event. Where no other source is named:
    NVSentinel."""

    symbol_error_warn_per_s: float = 120 / 3600
    """120 in an hour: the bit error rate of 1e-12 that the InfiniBand specification allows."""
    symbol_error_degraded_per_s: float = 10.0
    least_events: int = 5
    """Ours: fewer in one reading are no rate, however short it was; a counter whose first event counts is not held to it."""
    link_error_recovery_per_s: float = 5 / 60
    port_rcv_errors_per_s: float = 10.0
    port_xmit_discards_per_s: float = 100.0
    local_ack_timeout_err_per_s: float = 1.0
    link_downed_per_s: float = 0.0
    local_link_integrity_errors_per_s: float = 0.0
    excessive_buffer_overrun_errors_per_s: float = 0.0
    rnr_nak_retry_err_per_s: float = 0.0


@check(reads=IbSample, phases=Phase.PERIODIC | Phase.DEEP, every_s=60.0, thresholds=Thresholds)
def ib_counters(sample: IbSample, thresholds: Thresholds) -> Iterator[Finding]:
    """`ib.errors` per port and counter; `ib.counter_full` (information) for one that can rise no more.

    Without an earlier reading there is nothing to judge. A counter that went backwards or vanished is unknown: raises
    SensorError for it when no other has a finding of degraded or worse.
    """
    if sample.previous is None or not sample.interval_s:
        return
    before = {(device.name, port.number): port for device in sample.previous for port in device.ports}
    unknown: list[str] = []
    worst = Severity.INFO
    for device in sample.devices:
        for port in device.ports:
            then = before.get((device.name, port.number))
            if then is None:
                continue
            for finding in _judge(
                f"{device.name} port {port.number}", port, then, sample.interval_s, thresholds, unknown
            ):
                worst = max(worst, finding.severity)
                yield finding
    if unknown and worst < Severity.DEGRADED:
        raise SensorError(f"{unknown[0]}: its rate is not known until the next reading")


def _rules(thresholds: Thresholds) -> dict[str, tuple[tuple[float, Severity, Remedy], ...]]:
    """By counter: (rate above which, severity, remedy), worst first.

    NVSentinel replaces the machine at the first link_downed, overrun or integrity error. A switch that restarts makes
    all of its machines count one, so ours drains, lets jobs finish and tries the mild cure first.
    """
    return {
        "symbol_error": (
            (thresholds.symbol_error_degraded_per_s, Severity.DEGRADED, Remedy.HUMAN),
            (thresholds.symbol_error_warn_per_s, Severity.WARN, Remedy.HUMAN),
        ),
        "link_error_recovery": ((thresholds.link_error_recovery_per_s, Severity.DEGRADED, Remedy.HUMAN),),
        "link_downed": ((thresholds.link_downed_per_s, Severity.DEGRADED, Remedy.REBOOT),),
        "port_rcv_errors": ((thresholds.port_rcv_errors_per_s, Severity.DEGRADED, Remedy.HUMAN),),
        "port_xmit_discards": ((thresholds.port_xmit_discards_per_s, Severity.WARN, Remedy.HUMAN),),
        "local_link_integrity_errors": (
            (thresholds.local_link_integrity_errors_per_s, Severity.DEGRADED, Remedy.REBOOT),
        ),
        "excessive_buffer_overrun_errors": (
            (thresholds.excessive_buffer_overrun_errors_per_s, Severity.DEGRADED, Remedy.REBOOT),
        ),
        "rnr_nak_retry_err": ((thresholds.rnr_nak_retry_err_per_s, Severity.WARN, Remedy.HUMAN),),
        "local_ack_timeout_err": ((thresholds.local_ack_timeout_err_per_s, Severity.WARN, Remedy.HUMAN),),
    }


def _judge(
    where: str, now: FabricPort, then: FabricPort, seconds: float, thresholds: Thresholds, unknown: list[str]
) -> Iterator[Finding]:
    values = {_OLD_NAMES.get(name, name): value for name, value in now.counters.items()}
    earlier = {_OLD_NAMES.get(name, name): value for name, value in then.counters.items()}
    for name, rules in _rules(thresholds).items():
        if name not in values or name not in earlier:
            if name in earlier or name in now.unreadable:
                unknown.append(f"{name} of {where} cannot be read any more")
            continue
        rise = values[name] - earlier[name]
        if rise < 0:
            unknown.append(f"{name} of {where} went back from {earlier[name]} to {values[name]}")
            continue
        if rise == 0 and values[name] == _FULL.get(name):
            yield _finding("ib.counter_full", where, name, rise, seconds, Severity.INFO, Remedy.HUMAN)
        for rate, severity, remedy in rules:
            if rise / seconds > rate and rise > (thresholds.least_events if rate > 0 else 0):
                yield _finding("ib.errors", where, name, rise, seconds, severity, remedy)
                break


def _finding(
    fault: str, where: str, name: str, rise: int, seconds: float, severity: Severity, remedy: Remedy
) -> Finding:
    known = efa.TABLE.counters[name]
    return Finding(
        fault=fault,
        subject=f"{where} {name}",
        severity=severity,
        remedy=remedy,
        evidence={
            "counter": name,
            "rise": rise,
            "seconds": seconds,
            "per_s": round(rise / seconds, 6),
            "means": known.why,
            "is_remote": known.is_remote,
            "source": "counters",
        },
    )
