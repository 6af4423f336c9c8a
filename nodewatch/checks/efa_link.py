"""EFA devices whose link is down.

The EFA driver writes ACTIVE and LinkUp whatever the hardware does (efa_query_port in Linux), so the port's state proves
nothing. A driver that does say something else is believed. Where the network interface of the same PCI function was
read, its operational state is judged: one that is down among others that are up is impaired; all down is a machine that
nobody configured.
"""

from __future__ import annotations

from collections.abc import Iterator

from nodewatch.checks._api import Phase, check
from nodewatch.errors import SensorError
from nodewatch.model.fabric_samples import EfaSample, FabricDevice
from nodewatch.model.health import Finding, Remedy, Severity

_DOWN = frozenset({"down", "lowerlayerdown", "notpresent"})
_PHYS_DOWN = frozenset({"Disabled", "Sleep", "Polling", "PortConfigurationTraining", "LinkErrorRecovery", "Phy Test"})
"""Linux drivers/infiniband/core/sysfs.c; a word that is none of the kernel's proves nothing."""


@check(reads=EfaSample, phases=Phase.PROLOG | Phase.PERIODIC | Phase.DEEP, every_s=30.0)
def efa_link(sample: EfaSample) -> Iterator[Finding]:
    """`efa.port_down` and `efa.net_down`. Raises SensorError when a device shows no port whose state can be read."""
    was_up = {link.name for device in sample.previous or () for link in device.links if link.operstate == "up"}
    is_any_up = any(link.operstate == "up" for device in sample.devices for link in device.links)
    clean = True
    for device in sample.devices:
        for finding in (*_ports(device), *_links(device, is_any_up, was_up)):
            clean = False
            yield finding
    unread = [device.name for device in sample.devices if not any(port.state for port in device.ports)]
    if clean and unread:
        raise SensorError(f"the state of {unread[0]} cannot be read: look at /sys/class/infiniband/{unread[0]}/ports")


def _ports(device: FabricDevice) -> Iterator[Finding]:
    for port in device.ports:
        if port.state not in ("", "ACTIVE") or port.phys_state in _PHYS_DOWN:
            evidence = {"port": port.number, "state": port.state, "phys_state": port.phys_state}
            yield _finding("efa.port_down", device.name, Severity.DEGRADED, Remedy.REBOOT, evidence)


def _links(device: FabricDevice, is_any_up: bool, was_up: set[str]) -> Iterator[Finding]:
    for link in device.links:
        if link.operstate in _DOWN:
            is_fault = is_any_up or link.name in was_up
            yield _finding(
                "efa.net_down",
                device.name,
                Severity.DEGRADED if is_fault else Severity.WARN,
                Remedy.REBOOT if is_fault else Remedy.HUMAN,
                {"interface": link.name, "operstate": link.operstate, "was_up": link.name in was_up},
            )


def _finding(fault: str, subject: str, severity: Severity, remedy: Remedy, evidence: dict[str, object]) -> Finding:
    evidence["source"] = "/sys/class/infiniband" if fault == "efa.port_down" else "/sys/class/net"
    return Finding(fault=fault, subject=subject, severity=severity, remedy=remedy, evidence=evidence)
