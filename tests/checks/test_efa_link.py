"""efa_link: ports whose driver says that they are down, and interfaces that are."""

from __future__ import annotations

import pytest

from nodewatch.checks.efa_link import efa_link
from nodewatch.errors import SensorError
from nodewatch.model.fabric_samples import EfaSample, FabricDevice, FabricPort, NetLink
from nodewatch.model.health import Severity

UP = FabricPort(number=1, state="ACTIVE", phys_state="LinkUp")


def device(name: str, *states: str, port: FabricPort = UP) -> FabricDevice:
    links = tuple(NetLink(name=f"eth-{name}-{state}", operstate=state) for state in states)
    return FabricDevice(name=name, ports=(port,), links=links)


@pytest.mark.parametrize(
    ("devices", "expected"),
    [
        ((device("a"), device("b")), []),
        ((device("a", "up"), device("b", "unknown")), []),
        ((device("a", "up"), device("b", "down")), [("efa.net_down", "b", Severity.DEGRADED)]),
        (
            (device("a", "down"), device("b", "down")),
            [("efa.net_down", "a", Severity.WARN), ("efa.net_down", "b", Severity.WARN)],
        ),
        ((device("a", port=FabricPort(number=1, state="DOWN")),), [("efa.port_down", "a", Severity.DEGRADED)]),
    ],
)
def test_links(devices: tuple[FabricDevice, ...], expected: list[object]) -> None:
    findings = list(efa_link(EfaSample(devices=devices)))
    assert [(f.fault, f.subject, f.severity) for f in findings] == expected


def test_one_that_was_up_before_is_impaired() -> None:
    then = FabricDevice(name="a", ports=(UP,), links=(NetLink(name="eth-a-down", operstate="up"),))
    (finding,) = efa_link(EfaSample(devices=(device("a", "down"),), previous=(then,), interval_s=1.0))
    assert (finding.severity, finding.evidence["was_up"]) == (Severity.DEGRADED, True)


def test_a_device_without_a_state_is_unknown() -> None:
    with pytest.raises(SensorError):
        list(efa_link(EfaSample(devices=(device("a"), FabricDevice(name="b")))))
