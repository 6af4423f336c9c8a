"""What is asked of NVML: each answer in its place, and nothing raised for what a device does not offer."""

from __future__ import annotations

import ctypes
import json
from types import SimpleNamespace
from typing import Any

from nodewatch.model.gpu_samples import EccCounts
from nodewatch.sensors import nvml_questions as questions
from nodewatch.sensors.nvml import NvmlSensor, parse_answer


def field(value: int, kind: int = 1, code: int = 0) -> SimpleNamespace:
    union = SimpleNamespace(uiVal=value, ulVal=value, ullVal=value, sllVal=value)
    return SimpleNamespace(nvmlReturn=code, valueType=kind, value=union)


class Sram(ctypes.Structure):
    _fields_ = (("bThresholdExceeded", ctypes.c_uint),)


class Fabric(ctypes.Structure):
    _fields_ = (("status", ctypes.c_uint), ("state", ctypes.c_uint))


FIELDS = {230: field(1), 82: field(44), 270: field(5_000_000, 3), 271: field(0, 3, code=3), 38: field(7, 3)}
ANSWERS: dict[str, Any] = {
    "nvmlDeviceGetTemperatureThreshold": lambda _, which: (92, 89, 95)[which],
    "nvmlDeviceGetRemappedRows": lambda _: (0, 2, 1, 0),
    "nvmlDeviceGetCurrentClocksEventReasons": lambda _: 0x48,
    "nvmlDeviceGetFieldValues": lambda _, numbers: [FIELDS.get(n, field(0, code=3)) for n in numbers],
    "nvmlDeviceGetTotalEccErrors": lambda _, kind, counter: 10 * kind + counter,
    "nvmlDeviceGetMemoryErrorCounter": lambda _, kind, counter, place: place,
    "nvmlDeviceGetNvLinkState": lambda _, link: None if link >= 4 else int(link != 2),
    "nvmlDeviceGetRetiredPages": lambda _, cause: [1, 2, 3][: 2 - cause],
    "nvmlDeviceGetRowRemapperHistogram": lambda _: SimpleNamespace(max=5, high=4, partial=3, low=2, none=1),
    "nvmlDeviceGetMigMode": lambda _: [0, 1],
    "nvmlDeviceGetSramEccErrorStatus": lambda _, status: setattr(status._obj, "bThresholdExceeded", 1) or 0,
    "nvmlDeviceGetGpuFabricInfo": lambda _, info: setattr(info._obj, "state", 3) or 0,
}
NVML = SimpleNamespace(c_nvmlEccSramErrorStatus_v1_t=Sram, c_nvmlGpuFabricInfo_t=Fabric)


def ask(name: str, *arguments: Any) -> Any:
    return ANSWERS[name](*arguments) if name in ANSWERS else None


def all_of(answer: Any, nvml: Any) -> dict[str, Any]:
    return {**questions.once(answer, 0), **questions.each_time(answer, 0), **questions.now_and_then(nvml, answer, 0)}


def line(values: dict[str, Any]) -> str:
    known = {"index": 0, "uuid": "GPU-a", "pci_bus_id": "b", "is_lost": False}
    return json.dumps({"driver": "570.1", "gpus": [{**values, **known}], "unreadable": []})


def test_answers() -> None:
    (gpu,) = parse_answer(line(all_of(ask, NVML)), expected=1).gpus
    assert (gpu.slowdown_at_c, gpu.shutdown_at_c, gpu.memory_max_c, gpu.memory_temperature_c) == (89, 92, 95, 44)
    assert (gpu.remap_pending, gpu.remap_failed, gpu.remap_banks) == (True, False, (5, 4, 3, 2, 1))
    assert gpu.clock_reasons == frozenset({"hw_slowdown", "hw_thermal"})
    assert (gpu.hw_thermal_us, gpu.hw_power_brake_us, gpu.recovery_action) == (5000, None, "gpu_reset")
    assert gpu.ecc_volatile == EccCounts(correctable=0, uncorrectable=10, sram_uncorrectable=7, dram_uncorrectable=2)
    assert gpu.ecc_aggregate == EccCounts(correctable=1, uncorrectable=11, sram_uncorrectable=7, dram_uncorrectable=2)
    assert (gpu.nvlinks_active, gpu.nvlinks_inactive, gpu.nvlink_crc_errors) == (3, (2,), 7)
    assert (gpu.retired_single_bit, gpu.retired_double_bit) == (2, 1)
    assert (gpu.fabric_state, gpu.fabric_status, gpu.sram_threshold_exceeded) == ("completed", "success", True)
    assert (gpu.mig_enabled, gpu.mig_pending) == (False, True)


def test_a_device_that_offers_nothing() -> None:
    values = all_of(lambda *_: None, SimpleNamespace())
    (gpu,) = parse_answer(line(values), expected=1).gpus
    assert (gpu.ecc_volatile, gpu.clock_reasons, gpu.nvlinks_active) == (EccCounts(), None, None)
    assert (gpu.fabric_state, gpu.recovery_action, gpu.failed_fields) == (None, None, ())


def test_counters_are_compared_with_a_reading_of_a_minute_before() -> None:
    sensor = NvmlSensor(deadline_s=1.0, expected=1)
    spans = []
    for now in range(0, 300, 5):
        sample = sensor._with_earlier(parse_answer(line({"pcie_replays": now}), expected=1), float(now))
        if sample.previous is not None:
            assert sample.previous.previous is None
            assert sample.interval_s is not None
            grown = (sample.gpus[0].pcie_replays or 0) - (sample.previous.gpus[0].pcie_replays or 0)
            assert grown == sample.interval_s
            spans.append(sample.interval_s)
    assert len(spans) == 48
    assert min(spans) == 60.0
    assert max(spans) < 120.0
