"""Neuron devices from neuron-ls, neuron-monitor and sysfs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nodewatch.checks.neuron_devices import neuron_devices
from nodewatch.checks.neuron_ecc import neuron_ecc
from nodewatch.checks.neuron_execution import neuron_execution
from nodewatch.errors import SensorError
from nodewatch.model.cloud_samples import NeuronSample
from nodewatch.sensors.recorded._api import Recording
from nodewatch.sensors.recorded.neuron import load

TABLE = (
    "instance-type: trn1.32xlarge\n"
    "+--------+--------+--------+-----------+---------+\n"
    "| NEURON | NEURON | NEURON | CONNECTED |   PCI   |\n"
    "| DEVICE | CORES  | MEMORY |  DEVICES  |   BDF   |\n"
    "+--------+--------+--------+-----------+---------+\n"
    "| 0      | 2      | 32 GB  | 12, 3, 1  | 10:1c.0 |\n"
    "| 1      | 2      | 32 GB  | 13, 0, 2  | 10:1d.0 |\n"
    "|        |        |        |           | 4711    |\n"
    "+--------+--------+--------+-----------+---------+\n"
)


def listed(count: int) -> str:
    return json.dumps(
        [
            {"neuron_device": number, "bdf": f"10:{number:02x}.0", "nc_count": 2, "neuron_processes": []}
            for number in range(count)
        ]
    )


def wrapped(count: int) -> str:
    """As neuron-ls --output-format json of Neuron 2.34 gives it: the devices within what holds for all."""
    return json.dumps({"instance_type": "trn1.32xlarge", "instance_id": "i-1", "devices": json.loads(listed(count))})


def report(count: int = 16, errors: dict[str, int] | None = None, **ecc: int) -> str:
    device = {"mem_ecc_corrected": 4, "mem_ecc_uncorrected": 0, "sram_ecc_corrected": 0, "sram_ecc_uncorrected": 0}
    devices: list[dict[str, Any]] = [{"neuron_device_index": number} | device for number in range(count)]
    devices[-1] |= ecc
    summary = {"generic": 0, "numerical": 3, "transient": 0, "model": 0, "runtime": 0, "hardware": 0} | (errors or {})
    return json.dumps(
        {
            "neuron_runtime_data": [{"pid": 7, "report": {"execution_stats": {"error_summary": summary, "error": ""}}}],
            "system_data": {"neuron_hw_counters": {"period": 1.0, "neuron_devices": devices, "error": ""}},
            "neuron_hardware_info": {"neuron_device_count": count, "neuroncore_per_device_count": 2, "error": ""},
        }
    )


def tree(root: Path, count: int, **counters: str) -> Path:
    for number in range(count):
        place = root / "devices" / "virtual" / "neuron_device" / f"neuron{number}"
        for name in ("mem_ecc_uncorrected", "mem_ecc_repairable_uncorrected", "sram_ecc_uncorrected"):
            (place / "stats" / "hardware" / name).mkdir(parents=True)
            (place / "stats" / "hardware" / name / "total").write_text("0\n")
            (place / "stats" / "hardware" / name / "present").write_text("0\n")
        for core in range(2):
            (place / f"neuron_core{core}" / "stats" / "status" / "hw_error").mkdir(parents=True)
            (place / f"neuron_core{core}" / "stats" / "status" / "hw_error" / "total").write_text("0\n")
    last = root / "devices" / "virtual" / "neuron_device" / f"neuron{count - 1}"
    for name, value in counters.items():
        place = last / ("neuron_core0/stats/status" if name == "hw_error" else "stats/hardware") / name / "total"
        place.write_text(value + "\n")
    return root


def samples(path: Path, instance_type: str = "trn1.32xlarge", previous: Path | None = None) -> list[NeuronSample]:
    return list(
        load(
            Recording(path=path, instance_type=instance_type, previous=previous, interval_s=60.0 if previous else None)
        )
    )


def judge(found: list[NeuronSample]) -> list[tuple[str, str]]:
    return [
        (f.fault, f.subject)
        for sample in found
        for f in (*neuron_devices(sample), *neuron_ecc(sample), *neuron_execution(sample))
    ]


def written(tmp_path: Path, data: str | bytes) -> Path:
    path = tmp_path / "out.txt"
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


@pytest.mark.parametrize(
    ("text", "instance_type", "expected"),
    [
        (listed(16), "trn1.32xlarge", []),
        (listed(15), "trn1.32xlarge", [("neuron.missing", "neuron")]),
        (listed(1), "", []),
        (TABLE, "", [("neuron.missing", "neuron")]),
        (TABLE, "trn1.2xlarge", []),
        (wrapped(16), "", []),
        (wrapped(15), "", [("neuron.missing", "neuron")]),
        (TABLE, "trn2.48xlarge", [("neuron.missing", "neuron")]),
        (
            "neuron-ls: No neuron device found; make sure the driver is loaded\n",
            "trn1.2xlarge",
            [("neuron.missing", "neuron")],
        ),
        (report(), "trn1.32xlarge", []),
        (report(15), "trn1.32xlarge", [("neuron.missing", "neuron")]),
        (
            report(sram_ecc_uncorrected=1),
            "trn1.32xlarge",
            [("neuron.ecc_uncorrected", "neuron15 sram_ecc_uncorrected")],
        ),
        (report(errors={"hardware": 2}), "trn1.32xlarge", [("neuron.execution_error", "neuron")]),
    ],
)
def test_tools(tmp_path: Path, text: str, instance_type: str, expected: list[object]) -> None:
    assert judge(samples(written(tmp_path, text), instance_type)) == expected


def test_each_report_is_judged(tmp_path: Path) -> None:
    text = report() + "\n" + report(mem_ecc_uncorrected=2) + "\n"
    assert judge(samples(written(tmp_path, text))) == [("neuron.ecc_uncorrected", "neuron15 mem_ecc_uncorrected")]
    with pytest.raises(SensorError):
        judge(samples(written(tmp_path, text[:-40])))


def test_the_tree_of_the_driver(tmp_path: Path) -> None:
    well = tree(tmp_path / "well", 16)
    assert judge(samples(well)) == []
    bad = tree(tmp_path / "bad", 16, mem_ecc_repairable_uncorrected="1", hw_error="3")
    assert judge(samples(bad, previous=well)) == [
        ("neuron.ecc_repairable", "neuron15 mem_ecc_repairable_uncorrected"),
        ("neuron.execution_error", "neuron15"),
    ]
    assert judge(samples(tree(tmp_path / "few", 3))) == [("neuron.missing", "neuron")]


def test_counters_are_found_wherever_the_driver_puts_them(tmp_path: Path) -> None:
    tree(tmp_path, 16, sram_ecc_uncorrected="1")
    for place in tmp_path.glob("devices/virtual/neuron_device/*/stats/hardware"):
        moved = place.parent.parent / "info" / "memory" / "ecc"
        moved.parent.mkdir(parents=True)
        place.rename(moved)
    (sample,) = load(Recording(path=tmp_path, instance_type="trn1.32xlarge"))
    assert judge([sample]) == [("neuron.ecc_uncorrected", "neuron15 sram_ecc_uncorrected")]


def test_a_counter_that_cannot_be_read_is_unknown(tmp_path: Path) -> None:
    for name, value in (("a", "N/A"), ("b", "")):
        with pytest.raises(SensorError):
            judge(samples(tree(tmp_path / name, 16, sram_ecc_uncorrected=value)))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "[]",
        "{}",
        "[1]",
        listed(16)[:-3],
        TABLE[: TABLE.rindex("+---")],
        TABLE[:-70],
        '{"neuron_runtime_data": []}',
        '[{"a": 1}]',
    ],
)
def test_what_is_no_output_is_never_good(tmp_path: Path, text: str) -> None:
    with pytest.raises(SensorError):
        judge(samples(written(tmp_path, text), ""))


def test_a_directory_without_devices(tmp_path: Path) -> None:
    with pytest.raises(SensorError):
        samples(tmp_path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([TABLE, report(2), listed(2)]), st.integers(0, 900), st.binary(max_size=30))
def test_only_sensor_errors_are_raised(tmp_path: Path, text: str, cut: int, data: bytes) -> None:
    try:
        judge(samples(written(tmp_path, text[:cut].encode() + data + text[cut:].encode()), ""))
    except SensorError:
        return
