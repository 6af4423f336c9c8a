"""The InfiniBand devices of this machine: a tree like the kernel's, read by the real command."""

from __future__ import annotations

from pathlib import Path

from nodewatch.checks.ib_counters import Thresholds as Rates
from nodewatch.checks.ib_counters import ib_counters
from nodewatch.checks.ib_ports import Thresholds, ib_ports
from nodewatch.model.fabric_samples import IbSample
from nodewatch.sensors.ib import IbSensor
from nodewatch.sensors.reading import Reading

from .fabric_tree import EFA_FILES, MLX5_FILES, device, read


def sample(reading: Reading) -> IbSample:
    assert isinstance(reading.sample, IbSample), reading
    return reading.sample


def test_what_is_read_is_what_the_checks_judge(tmp_path: Path) -> None:
    tree = tmp_path / "infiniband"
    device(tree, "mlx5_0", MLX5_FILES)
    device(tree, "rdmap0s27", EFA_FILES)
    sensor = IbSensor(directory=tree)
    first = sample(read(sensor, 0.0))
    (only,) = first.devices
    (port,) = only.ports
    assert (only.name, only.model, port.link_layer, port.rate_gbps) == ("mlx5_0", "MT_0000000838", "InfiniBand", 400.0)
    assert (port.counters, port.unreadable) == ({"symbol_error": 0, "rnr_nak_retry_err": 3}, ())
    assert list(ib_ports(first, Thresholds())) == []
    device(tree, "mlx5_0", MLX5_FILES, state="1: DOWN", phys_state="2: Polling", symbol_error="6000")
    second = sample(read(sensor, 60.0))
    assert [(f.fault, f.severity.word) for f in ib_ports(second, Thresholds())] == [("ib.port_down", "fatal")]
    assert [f.evidence["per_s"] for f in ib_counters(second, Rates())] == [100.0]
    sensor.close()


def test_a_device_that_is_gone(tmp_path: Path) -> None:
    tree = tmp_path / "infiniband"
    for name in ("mlx5_0", "mlx5_1"):
        device(tree, name, MLX5_FILES)
    sensor = IbSensor(directory=tree)
    read(sensor, 0.0)
    (tree / "mlx5_0").unlink()
    (tree / "mlx5_1").unlink()
    for at in (30.0, 60.0, 90.0):
        found = [(finding.fault, finding.subject) for finding in ib_ports(sample(read(sensor, at)), Thresholds())]
        assert found == [("ib.device_gone", "mlx5_0"), ("ib.device_gone", "mlx5_1")]
    sensor.close()


def test_a_machine_without_any(tmp_path: Path) -> None:
    tree = tmp_path / "infiniband"
    assert read(IbSensor(directory=tree)).not_applicable
    device(tree, "rdmap0s27", EFA_FILES)
    device(tree, "rxe0", {"ports/1/state": "4: ACTIVE"})
    # Neither Amazon's devices nor software is asked: no command is run for them.
    assert read(IbSensor(directory=tree, argv=("false",))).not_applicable
