"""InfiniBand and RoCE ports that are down, not configured, or slower than the others.

* A port that looks for the other side (Polling) has no cable, or the far end is dead. Where the others of the machine
  work it may be one that nobody uses, on Ethernet more often than not: that warns, unless it was up before.
* Up, but not yet configured (INIT, ARMED): no subnet manager has been here. It is the fabric's trouble, never the
  machine's own.
* A rate below that of its like on the same machine: lanes are lost. Without a model two ports may be meant to differ, so
  that warns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nodewatch.checks._api import Phase, check
from nodewatch.errors import SensorError
from nodewatch.model.fabric_samples import FabricDevice, FabricPort, IbSample
from nodewatch.model.health import Finding, Remedy, Severity

_SWITCHED_OFF = frozenset({"Disabled", "Sleep"})
_DOWN = _SWITCHED_OFF | {"Polling", "PortConfigurationTraining", "LinkErrorRecovery", "Phy Test"}
"""In which no packet passes (Linux drivers/infiniband/core/sysfs.c). A word that is none of the kernel's says nothing against a
port that is ACTIVE, for the subnet manager has made it so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """`unused_devices` names devices that nobody cabled, such as mlx5_5."""

    unused_devices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """What a port is held against."""

    was_active: frozenset[tuple[str, int]]
    is_any_active: bool
    best_rate: dict[tuple[str, str], float]


@check(reads=IbSample, phases=Phase.PROLOG | Phase.PERIODIC | Phase.DEEP, every_s=30.0, thresholds=Thresholds)
def ib_ports(sample: IbSample, thresholds: Thresholds) -> Iterator[Finding]:
    """`ib.port_down`, `ib.port_disabled`, `fabric.not_configured`, `ib.port_slow` and `ib.device_gone`.

    Raises SensorError when a port's state cannot be read and nothing else is wrong.
    """
    devices = [device for device in sample.devices if device.name not in thresholds.unused_devices]
    seen = _survey(sample, devices)
    clean = True
    unread: str | None = None
    for device in devices:
        for port in device.ports:
            if not port.state:
                unread = unread or f"{device.name} port {port.number}"
            for finding in _judge(device, port, seen):
                clean = clean and finding.severity < Severity.DEGRADED
                yield finding
        if not device.ports:
            unread = unread or device.name
    names = {device.name for device in sample.devices}
    for before in sample.previous or ():
        if before.name not in names:
            clean = False
            evidence: dict[str, object] = {
                "seconds": sample.interval_s,
                "devices": sorted(names),
                "source": "/sys/class/infiniband",
            }
            yield _finding("ib.device_gone", before.name, Severity.FATAL, Remedy.REBOOT, evidence)
    if clean and unread is not None:
        raise SensorError(f"the state of {unread} cannot be read: look at it with ibstat")


def _survey(sample: IbSample, devices: list[FabricDevice]) -> _Seen:
    rates: dict[tuple[str, str], float] = {}
    for device in devices:
        for port in device.ports:
            if port.state == "ACTIVE" and port.rate_gbps is not None:
                key = (device.model, port.link_layer)
                rates[key] = max(rates.get(key, 0.0), port.rate_gbps)
    return _Seen(
        was_active=frozenset(
            (device.name, port.number)
            for device in sample.previous or ()
            for port in device.ports
            if port.state == "ACTIVE"
        ),
        is_any_active=any(port.state == "ACTIVE" for device in devices for port in device.ports),
        best_rate=rates,
    )


def _judge(device: FabricDevice, port: FabricPort, seen: _Seen) -> Iterator[Finding]:
    subject = f"{device.name} port {port.number}"
    was_active = (device.name, port.number) in seen.was_active
    evidence: dict[str, object] = {
        "state": port.state,
        "phys_state": port.phys_state,
        "link_layer": port.link_layer,
        "rate_gbps": port.rate_gbps,
        "was_active": was_active,
        "source": "/sys/class/infiniband",
    }
    if port.state == "ACTIVE" and port.phys_state in _DOWN:
        yield _finding("ib.port_down", subject, Severity.DEGRADED, Remedy.REBOOT, evidence)
    elif port.state in ("INIT", "ARMED"):
        yield _finding("fabric.not_configured", subject, Severity.DEGRADED, Remedy.HUMAN, evidence)
    elif port.state == "DOWN" and port.phys_state in _SWITCHED_OFF:
        severity = Severity.DEGRADED if was_active else Severity.WARN
        yield _finding("ib.port_disabled", subject, severity, Remedy.HUMAN, evidence)
    elif port.state == "DOWN":
        others = [other for other in device.ports if other.number != port.number and other.state == "ACTIVE"]
        is_spare = port.link_layer == "Ethernet" or bool(others)
        severity = Severity.WARN if is_spare and seen.is_any_active and not was_active else Severity.DEGRADED
        if not seen.is_any_active and not is_spare:
            severity = Severity.FATAL
        remedy = Remedy.HUMAN if severity is Severity.WARN else Remedy.REBOOT
        yield _finding("ib.port_down", subject, severity, remedy, evidence)
    elif port.state == "ACTIVE" and port.rate_gbps is not None:
        best = seen.best_rate[(device.model, port.link_layer)]
        if port.rate_gbps < best:
            severity = Severity.DEGRADED if device.model else Severity.WARN
            yield _finding("ib.port_slow", subject, severity, Remedy.HUMAN, {**evidence, "others_gbps": best})


def _finding(fault: str, subject: str, severity: Severity, remedy: Remedy, evidence: dict[str, object]) -> Finding:
    return Finding(fault=fault, subject=subject, severity=severity, remedy=remedy, evidence=evidence)
