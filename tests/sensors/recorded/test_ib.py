"""Recorded trees of InfiniBand devices."""

from __future__ import annotations

from pathlib import Path

import pytest

from nodewatch.checks.ib_counters import Thresholds as Rates
from nodewatch.checks.ib_counters import ib_counters
from nodewatch.checks.ib_ports import Thresholds, ib_ports
from nodewatch.errors import SensorError
from nodewatch.model.fabric_samples import IbSample
from nodewatch.sensors.recorded._api import Recording
from nodewatch.sensors.recorded.ib import load


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def device(tree: Path, name: str, **files: str) -> Path:
    place = tree / name
    write(place / "node_guid", "b83f:d203:00aa:0001\n")
    write(place / "board_id", "MT_0000000838\n")
    write(place / "hca_type", "MT4129\n")
    usual = {"state": "4: ACTIVE", "phys_state": "5: LinkUp", "link_layer": "InfiniBand", "rate": "400 Gb/sec (4X NDR)"}
    for file, text in (usual | files).items():
        write(place / "ports" / "1" / file, text + "\n")
    for counter in ("symbol_error", "link_downed", "port_rcv_errors"):
        write(place / "ports" / "1" / "counters" / counter, "0\n")
    write(place / "ports" / "1" / "counters" / "VL15_dropped", "N/A (no PMA)\n")
    return place


def read(path: Path, previous: Path | None = None) -> IbSample:
    (sample,) = load(Recording(path=path, previous=previous, interval_s=60.0 if previous else None))
    return sample


def test_a_healthy_tree(tmp_path: Path) -> None:
    for number in range(8):
        device(tmp_path / "infiniband", f"mlx5_{number}")
    sample = read(tmp_path, tmp_path)
    assert (len(sample.devices), sample.devices[0].model) == (8, "MT_0000000838")
    port = sample.devices[0].ports[0]
    assert (port.rate_gbps, port.link_layer, port.unreadable) == (400.0, "InfiniBand", ())
    assert [*ib_ports(sample, Thresholds()), *ib_counters(sample, Rates())] == []


def test_states_of_the_kernel(tmp_path: Path) -> None:
    device(tmp_path, "mlx5_0")
    device(tmp_path, "mlx5_1", state="1: DOWN", phys_state="2: Polling")
    device(tmp_path, "mlx5_2", state="2: INIT")
    device(tmp_path, "mlx5_3", rate="200 Gb/sec (2X NDR)")
    findings = list(ib_ports(read(tmp_path), Thresholds()))
    assert [(f.fault, f.subject) for f in findings] == [
        ("ib.port_down", "mlx5_1 port 1"),
        ("fabric.not_configured", "mlx5_2 port 1"),
        ("ib.port_slow", "mlx5_3 port 1"),
    ]


def test_an_efa_device_is_none(tmp_path: Path) -> None:
    place = device(tmp_path, "rdmap0s27")
    write(place / "device" / "vendor", "0x1d0f\n")
    with pytest.raises(SensorError):
        read(tmp_path)


def test_a_device_without_a_readable_state_is_unknown(tmp_path: Path) -> None:
    place = device(tmp_path, "mlx5_0")
    (place / "ports" / "1" / "state").unlink()
    with pytest.raises(SensorError):
        list(ib_ports(read(tmp_path), Thresholds()))
