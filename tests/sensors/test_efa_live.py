"""The EFA devices of this machine: a tree like the kernel's, read by the real command, and commands that hang."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from nodewatch.checks.efa_counters import Thresholds, efa_counters
from nodewatch.checks.efa_devices import efa_devices
from nodewatch.checks.efa_link import efa_link
from nodewatch.model.fabric_samples import EfaSample
from nodewatch.sensors.efa import EfaSensor
from nodewatch.sensors.fabric import parse
from nodewatch.sensors.reading import Reading

from .fabric_tree import EFA_FILES, MLX5_FILES, device, read


def sample(reading: Reading) -> EfaSample:
    assert isinstance(reading.sample, EfaSample), reading
    return reading.sample


def test_two_readings_of_a_tree(tmp_path: Path) -> None:
    tree = tmp_path / "infiniband"
    device(tree, "rdmap0s27")
    device(tree, "mlx5_0", MLX5_FILES)
    sensor = EfaSensor(expected=1, directory=tree)
    first = sample(read(sensor, 100.0))
    assert ([item.name for item in first.devices], first.previous, first.expected) == (["rdmap0s27"], None, 1)
    (port,) = first.devices[0].ports
    assert (port.state, port.phys_state, port.counters["rx_drops"]) == ("ACTIVE", "LinkUp", 0)
    assert (first.devices[0].counters["cmds_err"], first.devices[0].unreadable) == (2, ())
    device(tree, "rdmap0s27", rx_drops="5")
    assert sample(read(sensor, 130.0)).previous is None
    second = sample(read(sensor, 160.0))
    assert (second.previous, second.interval_s) == (first.devices, 60.0)
    (finding,) = efa_counters(second, Thresholds())
    assert (finding.fault, finding.evidence["rise"]) == ("efa.errors", 5)
    sensor.close()


def test_every_rise_falls_into_a_reading_of_the_counters(tmp_path: Path) -> None:
    tree = tmp_path / "infiniband"
    device(tree, "rdmap0s27")
    sensor = EfaSensor(expected=1, directory=tree)
    before = [sample(read(sensor, at)).interval_s for at in (0.0, 28.5, 57.0, 88.5, 120.0, 148.5)]
    assert before == [None, None, 57.0, 60.0, 63.0, 60.0]
    sensor.close()


def test_a_device_that_is_gone_stays_gone_and_may_come_back(tmp_path: Path) -> None:
    tree = tmp_path / "infiniband"
    for name in ("rdmap0s27", "rdmap1s27"):
        device(tree, name)
    sensor = EfaSensor(expected=None, directory=tree)
    assert list(efa_devices(sample(read(sensor, 0.0)))) == []
    (tree / "rdmap1s27").unlink()
    for at in (30.0, 60.0, 90.0, 120.0, 150.0):
        found = [(finding.fault, finding.subject) for finding in efa_devices(sample(read(sensor, at)))]
        assert found == [("efa.device_missing", "efa"), ("efa.device_gone", "rdmap1s27")]
    device(tree, "rdmap1s27", rx_drops="900")
    for at in (180.0, 210.0):
        back = sample(read(sensor, at))
        assert list(efa_devices(back)) == list(efa_counters(back, Thresholds())) == []
    sensor.close()


def test_the_interface_of_the_same_function_is_read(tmp_path: Path) -> None:
    tree = tmp_path / "infiniband"
    device(tree, "rdmap0s27", {**EFA_FILES, "device/net/eth1/operstate": "up"})
    device(tree, "rdmap1s27", {**EFA_FILES, "device/net/eth2/operstate": "down"})
    sensor = EfaSensor(expected=2, directory=tree)
    (finding,) = efa_link(sample(read(sensor)))
    assert (finding.fault, finding.subject, finding.evidence["interface"]) == ("efa.net_down", "rdmap1s27", "eth2")
    sensor.close()


def test_a_machine_without_any(tmp_path: Path) -> None:
    assert read(EfaSensor(expected=None, directory=tmp_path / "none")).not_applicable
    assert read(EfaSensor(expected=0, directory=tmp_path)).not_applicable
    assert sample(read(EfaSensor(expected=32, directory=tmp_path / "none"))).devices == ()


def test_what_is_missing_is_given_time_after_a_boot(tmp_path: Path) -> None:
    def settles(uptime_s: float) -> float:
        sensor = EfaSensor(expected=16, grace_s=120.0, directory=tmp_path, uptime=lambda: uptime_s)
        return sample(read(sensor)).settles_in_s

    assert (settles(20.0), settles(120.0), settles(5000.0)) == (100.0, 0.0, 0.0)


def test_a_device_that_hangs_is_late_and_no_second_child_is_started(tmp_path: Path) -> None:
    tree = tmp_path / "infiniband"
    device(tree, "rdmap0s27")
    sensor = EfaSensor(expected=1, deadline_s=0.1, directory=tree, argv=("sleep", "60"))
    for _ in range(2):
        reading = read(sensor)
        assert reading.error is not None and "0.1 s" in reading.error
    sensor.close()


def test_commands_that_cannot_be_run_or_fail(tmp_path: Path) -> None:
    tree = tmp_path / "infiniband"
    device(tree, "rdmap0s27")
    for argv in (("/nonexistent",), ("false",)):
        assert read(EfaSensor(expected=1, directory=tree, argv=argv)).error


@given(st.text())
def test_its_output_never_raises(text: str) -> None:
    parse(text)
    parse(f"e/device/vendor:0x1d0f\ne/ports/1/hw_counters/rx_drops:{text}\n")
