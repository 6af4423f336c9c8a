"""EFA error counters that rise.

Counters are judged by what they rose between two readings, never by their absolute value, which counts since the driver
was loaded and tells nothing of now. Nobody has published how often a healthy fleet sees such events, so what public
monitors call a warning at the first event stays a warning, and only a flood, or a device that does not answer its
driver, drains a machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from nodewatch.checks._api import Phase, check
from nodewatch.errors import SensorError
from nodewatch.knowledge import efa
from nodewatch.model.fabric_samples import EfaSample, FabricDevice
from nodewatch.model.health import Finding, Remedy, Severity

_EVENTS = (
    "rx_drops",
    "retrans_timeout_events",
    "unresponsive_remote_events",
    "impaired_remote_conn_events",
    "rdma_read_wr_err",
    "rdma_write_wr_err",
    "cmds_err",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """`warn_events` is a rise between two readings, `degraded_per_s` a rate."""

    warn_events: int = 1
    """The AWS toolkit (rx_drops, retrans_timeout_events) and GPU-FRS (each counter) warn at the first event."""
    degraded_per_s: float = 100.0
    """Ours: one public report of a transport that failed counted hundreds to thousands in each burst of seconds."""


@check(reads=EfaSample, phases=Phase.PERIODIC | Phase.DEEP, every_s=60.0, thresholds=Thresholds)
def efa_counters(sample: EfaSample, thresholds: Thresholds) -> Iterator[Finding]:
    """`efa.errors` per device and counter, `efa.admin_stalled` for a device that completes no command any more.

    Without an earlier reading there is nothing to judge. A counter that went backwards (a reload, a reset) or vanished
    is unknown: raises SensorError for it when no other has a finding of degraded or worse.
    """
    if sample.previous is None or not sample.interval_s:
        return
    before = {device.name: device for device in sample.previous}
    unknown: list[str] = []
    worst = Severity.INFO
    for device in sample.devices:
        if device.name not in before:
            continue
        for finding in _judge(device, before[device.name], sample.interval_s, thresholds, unknown):
            worst = max(worst, finding.severity)
            yield finding
    if unknown and worst < Severity.DEGRADED:
        raise SensorError(f"{unknown[0]}: its rate is not known until the next reading")


def _judge(
    now: FabricDevice, then: FabricDevice, seconds: float, thresholds: Thresholds, unknown: list[str]
) -> Iterator[Finding]:
    rises = _rises(now.name, now.counters, then.counters, now.unreadable, unknown)
    earlier = {port.number: port for port in then.ports}
    for port in now.ports:
        if port.number in earlier:
            where = f"{now.name} port {port.number}"
            rises |= _rises(where, port.counters, earlier[port.number].counters, port.unreadable, unknown)
    for name in _EVENTS:
        rise = rises.get(name, 0)
        if rise >= max(thresholds.warn_events, 1):
            is_flood = rise / seconds >= thresholds.degraded_per_s
            yield _finding(
                now.name, name, rise, seconds, Severity.DEGRADED if is_flood else Severity.WARN, Remedy.HUMAN
            )
    # A command that the device never completed: the driver gives the device up after it (efa_com.c).
    if rises.get("no_completion_cmds", 0) > 0:
        rise = rises["no_completion_cmds"]
        yield _finding(now.name, "no_completion_cmds", rise, seconds, Severity.DEGRADED, Remedy.REBOOT)
    elif rises.get("submitted_cmds", 0) > 1 and rises.get("completed_cmds") == 0:
        yield Finding(
            fault="efa.admin_stalled",
            subject=now.name,
            severity=Severity.DEGRADED,
            remedy=Remedy.REBOOT,
            evidence={"submitted_cmds": rises["submitted_cmds"], "completed_cmds": 0, "seconds": seconds},
        )


def _rises(
    where: str, now: Mapping[str, int], then: Mapping[str, int], unreadable: tuple[str, ...], unknown: list[str]
) -> dict[str, int]:
    rises = {}
    for name in (*_EVENTS, "no_completion_cmds", "submitted_cmds", "completed_cmds"):
        if name in now and name in then:
            if now[name] < then[name]:
                unknown.append(f"{name} of {where} went back from {then[name]} to {now[name]}")
            else:
                rises[name] = now[name] - then[name]
        elif name in then or name in unreadable:
            unknown.append(f"{name} of {where} cannot be read any more")
    return rises


def _finding(device: str, name: str, rise: int, seconds: float, severity: Severity, remedy: Remedy) -> Finding:
    known = efa.TABLE.counters[name]
    return Finding(
        fault="efa.errors",
        subject=f"{device} {name}",
        severity=severity,
        remedy=remedy,
        evidence={
            "counter": name,
            "rise": rise,
            "seconds": seconds,
            "per_s": round(rise / seconds, 6),
            "means": known.why,
            "is_remote": known.is_remote,
            "source": "hw_counters",
        },
    )
