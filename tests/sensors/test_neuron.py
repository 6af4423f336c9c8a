"""Neuron devices by a tree like the driver's."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from nodewatch.checks._api import load_checks
from nodewatch.model.cloud_samples import NeuronSample
from nodewatch.sensors.neuron import NeuronMachine, neuron_sensor, parse

from .tools import read

TREE = "sys/devices/virtual/neuron_device"


def put(root: Path, index: int, *, uncorrected: str = "0", errors: tuple[str, ...] = ("0", "0")) -> None:
    device = root / TREE / f"neuron{index}"
    for name, value in (("mem_ecc_uncorrected", uncorrected), ("sram_ecc_uncorrected", "0")):
        counter = device / "stats/hardware" / name
        counter.mkdir(parents=True, exist_ok=True)
        (counter / "total").write_text(value + "\n")
    for core, value in enumerate(errors):
        status = device / f"neuron_core{core}/stats/status/hw_error"
        status.mkdir(parents=True, exist_ok=True)
        (status / "total").write_text(value + "\n")


def sample_of(root: Path, expected: int | None) -> NeuronSample:
    reading = read(neuron_sensor(NeuronMachine(expected=expected, root=root)))
    assert isinstance(reading.sample, NeuronSample), reading
    return reading.sample


def test_devices_and_counters(tmp_path: Path) -> None:
    for index in (0, 1, 10):
        put(tmp_path, index, uncorrected=str(index), errors=("1", "2"))
    sample = sample_of(tmp_path, 16)
    assert (sample.count, sample.expected, sample.source, sample.previous) == (3, 16, "sysfs", None)
    assert [device.index for device in sample.devices] == [0, 1, 10]
    assert sample.devices[2].ecc == {"mem_ecc_uncorrected": 10, "sram_ecc_uncorrected": 0}
    assert sample.devices[2].executions == {"hw_error": 3}
    faults = {f.fault for name in ("neuron_devices", "neuron_ecc") for f in load_checks()[name].run(sample)}
    assert faults == {"neuron.missing", "neuron.ecc_uncorrected"}


def test_the_reading_before_is_kept(tmp_path: Path) -> None:
    put(tmp_path, 0)
    sensor = neuron_sensor(NeuronMachine(expected=1, root=tmp_path))
    assert read(sensor).sample
    put(tmp_path, 0, errors=("5", "0"))
    sample = read(sensor).sample
    assert isinstance(sample, NeuronSample)
    (finding,) = load_checks()["neuron_execution"].run(sample)
    assert finding.evidence["rise"] == 5


def test_a_counter_that_is_no_number(tmp_path: Path) -> None:
    put(tmp_path, 0, uncorrected="N/A")
    assert sample_of(tmp_path, 1).devices[0].unreadable == ("mem_ecc_uncorrected",)


def test_plain_files_and_files_that_are_no_text(tmp_path: Path) -> None:
    place = tmp_path / TREE / "neuron0/stats/hardware"
    place.mkdir(parents=True)
    (place / "mem_ecc_uncorrected").write_text("7\n")
    (place / "sram_ecc_uncorrected").write_bytes(b"\xff\xfe\n")
    (device,) = sample_of(tmp_path, 1).devices
    assert device.ecc == {"mem_ecc_uncorrected": 7}


def test_where_there_is_none(tmp_path: Path) -> None:
    assert read(neuron_sensor(NeuronMachine(expected=None, root=tmp_path))).not_applicable
    assert read(neuron_sensor(NeuronMachine(expected=0, root=tmp_path))).not_applicable
    assert "driver is not loaded" in (read(neuron_sensor(NeuronMachine(expected=16, root=tmp_path))).error or "")
    (tmp_path / "sys/module/neuron").mkdir(parents=True)
    sample = sample_of(tmp_path, 16)
    assert (sample.count, sample.said) == (0, "the driver is loaded and shows no device")


@given(st.text())
def test_no_output_raises(text: str) -> None:
    assert [device.index for device in parse(text, [0, 3])] == [0, 3]
