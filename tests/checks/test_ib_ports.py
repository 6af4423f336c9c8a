"""ib_ports: down, not configured, slow, gone; and ports that nobody uses."""

from __future__ import annotations

import pytest

from nodewatch.checks.ib_ports import Thresholds, ib_ports
from nodewatch.errors import SensorError
from nodewatch.model.fabric_samples import FabricDevice, FabricPort, IbSample
from nodewatch.model.health import Remedy, Severity


def device(
    name: str, state: str = "ACTIVE", phys: str = "LinkUp", layer: str = "InfiniBand", rate: float = 400.0
) -> FabricDevice:
    port = FabricPort(number=1, state=state, phys_state=phys, link_layer=layer, rate_gbps=rate)
    return FabricDevice(name=name, model="MT4129", ports=(port,))


GOOD = device("mlx5_0")


@pytest.mark.parametrize(
    ("devices", "previous", "expected"),
    [
        ((GOOD, device("b")), None, []),
        ((GOOD, device("b", "DOWN", "Polling")), None, [("ib.port_down", Severity.DEGRADED, Remedy.REBOOT)]),
        ((device("b", "DOWN", "Polling"),), None, [("ib.port_down", Severity.FATAL, Remedy.REBOOT)]),
        ((GOOD, device("b", "DOWN", "Polling", "Ethernet")), None, [("ib.port_down", Severity.WARN, Remedy.HUMAN)]),
        (
            (GOOD, device("b", "DOWN", "Polling", "Ethernet")),
            (device("b"),),
            [("ib.port_down", Severity.DEGRADED, Remedy.REBOOT)],
        ),
        ((GOOD, device("b", "DOWN", "Disabled")), None, [("ib.port_disabled", Severity.WARN, Remedy.HUMAN)]),
        (
            (GOOD, device("b", "DOWN", "Disabled")),
            (device("b"),),
            [("ib.port_disabled", Severity.DEGRADED, Remedy.HUMAN)],
        ),
        ((GOOD, device("b", "INIT")), None, [("fabric.not_configured", Severity.DEGRADED, Remedy.HUMAN)]),
        (
            (GOOD, device("b", "ACTIVE", "LinkErrorRecovery")),
            None,
            [("ib.port_down", Severity.DEGRADED, Remedy.REBOOT)],
        ),
        # Recordings of old drivers and of simulators have other words there.
        ((GOOD, device("b", "ACTIVE", "ACTIVE")), None, []),
        ((GOOD, device("b", rate=200.0)), None, [("ib.port_slow", Severity.DEGRADED, Remedy.HUMAN)]),
        ((GOOD, device("b", rate=100.0, layer="Ethernet")), None, []),
        ((GOOD,), (GOOD, device("b")), [("ib.device_gone", Severity.FATAL, Remedy.REBOOT)]),
    ],
)
def test_ports(
    devices: tuple[FabricDevice, ...], previous: tuple[FabricDevice, ...] | None, expected: list[object]
) -> None:
    findings = list(ib_ports(IbSample(devices=devices, previous=previous, interval_s=60.0), Thresholds()))
    assert [(f.fault, f.severity, f.remedy) for f in findings] == expected


def test_ports_that_nobody_uses_can_be_named() -> None:
    sample = IbSample(devices=(GOOD, device("mlx5_5", "DOWN", "Polling")))
    assert list(ib_ports(sample, Thresholds(unused_devices=("mlx5_5",)))) == []


def test_without_a_model_two_rates_may_be_meant() -> None:
    ports = (
        FabricPort(number=1, state="ACTIVE", rate_gbps=400.0),
        FabricPort(number=1, state="ACTIVE", rate_gbps=100.0),
    )
    sample = IbSample(devices=tuple(FabricDevice(name=f"mlx5_{n}", ports=(port,)) for n, port in enumerate(ports)))
    assert [f.severity for f in ib_ports(sample, Thresholds())] == [Severity.WARN]


def test_a_state_that_cannot_be_read_is_unknown() -> None:
    for broken in (FabricDevice(name="b"), FabricDevice(name="b", ports=(FabricPort(number=1),))):
        with pytest.raises(SensorError):
            list(ib_ports(IbSample(devices=(GOOD, broken)), Thresholds()))
