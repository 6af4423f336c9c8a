"""Libfabric through the stand-ins: the list of devices, both ends of a ping-pong over each, and the device that fails."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from nodewatch.checks.efa_pingpong import Thresholds, efa_pingpong
from nodewatch.checks.efa_provider import efa_provider
from nodewatch.model.fabric_samples import FiInfoSample, FiPingpongSample
from nodewatch.sensors.deep import fabric
from nodewatch.sensors.deep.tool import ToolSensor
from nodewatch.sensors.reading import Reading

Told = Callable[..., Path]
Run = Callable[..., Reading]


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def info(expected: int | None = 32) -> ToolSensor:
    return ToolSensor(
        "fi_info", fabric.INFO_READS, lambda: fabric.info_procedure("fi_info", expected=expected), deadline_s=30.0
    )


def pingpong(port: int, *, most: int = 2, each_s: float = 10.0) -> ToolSensor:
    def procedure() -> fabric.Procedure:
        return fabric.pingpong_procedure(
            "fi_info", "fi_pingpong", expected=32, most=most, port=port, each_s=each_s, iterations=100
        )

    return ToolSensor("fi_pingpong", fabric.PINGPONG_READS, procedure, deadline_s=60.0)


def sample(reading: Reading) -> FiPingpongSample:
    assert isinstance(reading.sample, FiPingpongSample), reading
    return reading.sample


@pytest.mark.parametrize(
    ("fault", "expected"),
    [({}, []), ({"devices": 31}, ["efa.domain_missing"]), ({"error": True}, ["efa.no_provider"])],
)
def test_what_is_offered(told: Told, run: Run, fault: dict[str, object], expected: list[str]) -> None:
    told(fi_info=fault)
    reading = run(info())
    assert isinstance(reading.sample, FiInfoSample), reading
    assert [finding.fault for finding in efa_provider(reading.sample)] == expected


def test_both_ends_over_each_device(told: Told, run: Run, port: int) -> None:
    found = sample(run(pingpong(port)))
    assert list(efa_pingpong(found, Thresholds())) == []
    assert len(found.rows) == 12 and found.incomplete is None


def test_the_device_that_fails_is_named(told: Told, run: Run, port: int) -> None:
    told(fi_info={"devices": 2}, fi_pingpong={"error": True, "domain": "rdmap32s27-rdm"})
    found = sample(run(pingpong(port)))
    (finding,) = efa_pingpong(found, Thresholds())
    assert finding.fault == "efa.pingpong_failed"
    assert all(line.startswith("rdmap32s27-rdm: ") for line in finding.evidence["said"])


def test_the_device_that_hangs_is_named(told: Told, run: Run, port: int) -> None:
    told(fi_info={"devices": 2}, fi_pingpong={"hang": True, "domain": "rdmap16s27-rdm"})
    found = sample(run(pingpong(port, each_s=3.0)))
    (finding,) = efa_pingpong(found, Thresholds())
    assert finding.fault == "efa.pingpong_failed" and len(found.rows) == 6
    assert any("rdmap16s27-rdm: fi_pingpong timed out" in line for line in finding.evidence["said"])


def test_no_device_to_send_over(told: Told, run: Run, port: int) -> None:
    told(fi_info={"error": True})
    error = run(pingpong(port)).error
    assert error is not None and "no EFA device" in error
