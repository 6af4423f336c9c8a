"""The EFA devices of this machine: a tree like the kernel's, read by the real command, and commands that hang."""

from __future__ import annotations

import time
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from nodewatch.model.fabric_samples import EfaSample
from nodewatch.sensors.efa import EfaSensor, parse
from nodewatch.sensors.reading import PolledSensor, Reading


def device(tree: Path, name: str, *, vendor: str = "0x1d0f", rx_drops: str = "0") -> None:
    real = tree.parent / "devices" / name
    for path, text in (
        ("device/vendor", vendor),
        ("ports/1/state", "4: ACTIVE"),
        ("ports/1/phys_state", "5: LinkUp"),
        ("ports/1/hw_counters/rx_drops", rx_drops),
        ("hw_counters/cmds_err", "2"),
    ):
        (real / path).parent.mkdir(parents=True, exist_ok=True)
        (real / path).write_text(text + "\n")
    tree.mkdir(exist_ok=True)
    if not (tree / name).exists():
        (tree / name).symlink_to(real)


def read(sensor: PolledSensor, seconds: float = 5.0) -> Reading:
    sensor.start(time.monotonic())
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        reading = sensor.result(time.monotonic())
        if reading is not None:
            return reading
        time.sleep(0.01)
    raise AssertionError("no reading")


def sample(reading: Reading) -> EfaSample:
    assert isinstance(reading.sample, EfaSample), reading
    return reading.sample


def test_two_readings_of_a_tree(tmp_path: Path) -> None:
    tree = tmp_path / "infiniband"
    device(tree, "rdmap0s27")
    device(tree, "mlx5_0", vendor="0x15b3")
    sensor = EfaSensor(expected=1, directory=tree)
    first = sample(read(sensor))
    assert ([item.name for item in first.devices], first.previous, first.expected) == (["rdmap0s27"], None, 1)
    (port,) = first.devices[0].ports
    assert (port.state, port.phys_state, port.counters, first.devices[0].counters) == (
        "ACTIVE",
        "LinkUp",
        {"rx_drops": 0},
        {"cmds_err": 2},
    )
    device(tree, "rdmap0s27", rx_drops="5")
    second = sample(read(sensor))
    assert second.previous == first.devices and second.interval_s is not None and second.interval_s > 0
    assert second.devices[0].ports[0].counters == {"rx_drops": 5}
    sensor.close()


def test_a_machine_without_any(tmp_path: Path) -> None:
    assert read(EfaSensor(expected=None, directory=tmp_path / "none")).not_applicable
    assert read(EfaSensor(expected=0, directory=tmp_path)).not_applicable
    assert sample(read(EfaSensor(expected=32, directory=tmp_path / "none"))).devices == ()


def test_a_device_that_hangs_is_late_and_no_second_child_is_started(tmp_path: Path) -> None:
    sensor = EfaSensor(expected=1, deadline_s=0.1, directory=tmp_path, argv=("sleep", "60"))
    for _ in range(2):
        reading = read(sensor)
        assert reading.error is not None and "0.1 s" in reading.error
    sensor.close()


def test_commands_that_cannot_be_run_or_fail(tmp_path: Path) -> None:
    for argv in (("/nonexistent",), ("false",)):
        assert read(EfaSensor(expected=1, directory=tmp_path, argv=argv)).error


@given(st.text())
def test_its_output_never_raises(text: str) -> None:
    parse(text)
    parse(f"e/device/vendor:0x1d0f\ne/ports/1/hw_counters/rx_drops:{text}\n")
