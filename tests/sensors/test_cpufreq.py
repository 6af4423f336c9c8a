"""Processors' clocks by trees like the kernel's."""

from __future__ import annotations

from pathlib import Path

import pytest

from nodewatch.model.host_samples import CpuFrequencySample
from nodewatch.sensors.cpufreq import CpuFrequency
from nodewatch.sensors.procfs import ProcSensor

CPU = "sys/devices/system/cpu"


def policy(root: Path, cpu: int, **files: str) -> None:
    place = root / CPU / "cpufreq" / f"policy{cpu}"
    place.mkdir(parents=True)
    for name, value in files.items():
        (place / name).write_text(value + "\n")


def throttled(root: Path, cpu: int, milliseconds: str) -> None:
    place = root / CPU / f"cpu{cpu}" / "thermal_throttle"
    place.mkdir(parents=True, exist_ok=True)
    (place / "package_throttle_total_time_ms").write_text(milliseconds + "\n")


def read(sensor: ProcSensor) -> CpuFrequencySample:
    sensor.start(0.0)
    reading = sensor.result(0.0)
    assert reading is not None
    assert isinstance(reading.sample, CpuFrequencySample), reading
    return reading.sample


def sensor_of(root: Path, *times: float, in_container: bool = False) -> ProcSensor:
    clock = iter(times)
    return ProcSensor(
        "cpufreq", CpuFrequencySample, CpuFrequency(lambda: next(clock), in_container=in_container, root=root)
    )


def test_policies(tmp_path: Path) -> None:
    policy(tmp_path, 10, scaling_driver="acpi-cpufreq", scaling_governor="powersave", scaling_max_freq="2000000")
    policy(tmp_path, 2, scaling_max_freq="garbage", cpuinfo_max_freq="3500000")
    (tmp_path / CPU / "cpufreq" / "boost").write_text("1\n")
    first, second = read(sensor_of(tmp_path, 0.0)).policies
    assert (first.cpu, first.limit_khz, first.maximum_khz, first.driver) == (2, None, 3_500_000, "")
    assert (second.cpu, second.governor, second.limit_khz) == (10, "powersave", 2_000_000)


def test_throttling_is_counted_from_the_reading_before(tmp_path: Path) -> None:
    throttled(tmp_path, 0, "100")
    throttled(tmp_path, 1, "5000")
    sensor = sensor_of(tmp_path, 10.0, 310.0, 20.0, 320.0)
    first = read(sensor)
    assert (first.throttled_ms, first.throttled_rise_ms) == (5000, None)
    throttled(tmp_path, 0, "35000")
    second = read(sensor)
    assert (second.throttled_rise_ms, second.interval_s) == (30_000, 300.0)
    # A clock that goes back, and a counter that begins anew.
    assert read(sensor).throttled_rise_ms is None
    throttled(tmp_path, 0, "1")
    throttled(tmp_path, 1, "2")
    assert read(sensor).throttled_rise_ms is None


@pytest.mark.parametrize("in_container", [False, True])
def test_where_nothing_is_steered(tmp_path: Path, in_container: bool) -> None:
    (tmp_path / CPU / "cpu0").mkdir(parents=True)
    sensor = sensor_of(tmp_path, 0.0, in_container=in_container)
    sensor.start(0.0)
    reading = sensor.result(0.0)
    assert reading is not None
    assert reading.not_applicable


def test_a_tree_that_is_missing_is_unknown(tmp_path: Path) -> None:
    sensor = sensor_of(tmp_path, 0.0)
    sensor.start(0.0)
    reading = sensor.result(0.0)
    assert reading is not None
    assert "cannot be read" in (reading.error or "")
