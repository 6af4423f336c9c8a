"""What is asked of NVML beside a GPU's identity: by the child process, in values that JSON can carry.

A question that the device, the driver or the Python package does not know is answered with None. Names and numbers of NVML
are looked up when they are used, since older packages lack the newer ones.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

Ask = Callable[..., Any]
"""Calls the NVML function with this name; None when it is not supported or failed."""

_REASONS = (
    (0x1, "idle"),
    (0x2, "applications_clocks_setting"),
    (0x4, "sw_power_cap"),
    (0x8, "hw_slowdown"),
    (0x10, "sync_boost"),
    (0x20, "sw_thermal"),
    (0x40, "hw_thermal"),
    (0x80, "hw_power_brake"),
    (0x100, "display_clocks_setting"),
)
"""nvmlClocksEventReason*, in older releases nvmlClocksThrottleReason*."""
_ACTIONS = ("none", "gpu_reset", "node_reboot", "drain_p2p", "drain_and_reset")
_LATER_ACTIONS = ("recover_imex_domain", "bus_reset", "system_reboot")
"""NVML_GPU_RECOVERY_ACTION_* 0 to 7."""
_FABRIC = {1: "not_started", 2: "in_progress", 3: "completed"}
_CORRECTED, _UNCORRECTED = 0, 1
_VOLATILE, _AGGREGATE = 0, 1
_DRAM, _SRAM = 2, 7
_RECOVERY_ACTION, _MEMORY_TEMPERATURE, _HW_THERMAL, _HW_POWER_BRAKE = 230, 82, 270, 271
_CRC, _REPLAY, _RECOVERY = 38, 52, 59
"""NVML_FI_DEV_*."""


def once(ask: Ask, handle: Any) -> dict[str, Any]:
    """What stays as it is while the driver is loaded."""
    memory = ask("nvmlDeviceGetMemoryInfo", handle)
    return {
        "slowdown_at_c": ask("nvmlDeviceGetTemperatureThreshold", handle, 1),
        "shutdown_at_c": ask("nvmlDeviceGetTemperatureThreshold", handle, 0),
        "memory_max_c": ask("nvmlDeviceGetTemperatureThreshold", handle, 2),
        "pcie_generation_max": ask("nvmlDeviceGetMaxPcieLinkGeneration", handle),
        "pcie_width_max": ask("nvmlDeviceGetMaxPcieLinkWidth", handle),
        "memory_total_mib": None if memory is None else int(memory.total) >> 20,
    }


def each_time(ask: Ask, handle: Any) -> dict[str, Any]:
    """What can change at any moment: some twenty short calls."""
    remapped = ask("nvmlDeviceGetRemappedRows", handle) or (None, None, None, None)
    mask = ask("nvmlDeviceGetCurrentClocksEventReasons", handle)
    if mask is None:
        mask = ask("nvmlDeviceGetCurrentClocksThrottleReasons", handle)
    rates = ask("nvmlDeviceGetUtilizationRates", handle)
    ecc = ask("nvmlDeviceGetEccMode", handle)
    action, memory_c, thermal, braked = _fields(
        ask, handle, (_RECOVERY_ACTION, _MEMORY_TEMPERATURE, _HW_THERMAL, _HW_POWER_BRAKE)
    )
    actions = (*_ACTIONS, *_LATER_ACTIONS)
    return {
        "remapped_correctable": remapped[0],
        "remapped_uncorrectable": remapped[1],
        "remap_pending": None if remapped[2] is None else bool(remapped[2]),
        "remap_failed": None if remapped[3] is None else bool(remapped[3]),
        "ecc_enabled": None if ecc is None else bool(ecc[0]),
        "ecc_volatile": _ecc(ask, handle, _VOLATILE),
        "temperature_c": ask("nvmlDeviceGetTemperature", handle, 0),
        "memory_temperature_c": memory_c or None,
        "clock_reasons": None if mask is None else [name for bit, name in _REASONS if mask & bit],
        "hw_thermal_us": None if thermal is None else thermal // 1000,
        "hw_power_brake_us": None if braked is None else braked // 1000,
        "performance_state": ask("nvmlDeviceGetPerformanceState", handle),
        "utilization_percent": None if rates is None else int(rates.gpu),
        "pcie_generation": ask("nvmlDeviceGetCurrPcieLinkGeneration", handle),
        "pcie_width": ask("nvmlDeviceGetCurrPcieLinkWidth", handle),
        "recovery_action": None if action is None else actions[action] if action < len(actions) else str(action),
    }


def now_and_then(nvml: Any, ask: Ask, handle: Any) -> dict[str, Any]:
    """What changes seldom, or takes a call for each of many links."""
    histogram = ask("nvmlDeviceGetRowRemapperHistogram", handle)
    mig = ask("nvmlDeviceGetMigMode", handle) or (None, None)
    persistence = ask("nvmlDeviceGetPersistenceMode", handle)
    pending = ask("nvmlDeviceGetRetiredPagesPendingStatus", handle)
    single, double = (ask("nvmlDeviceGetRetiredPages", handle, cause) for cause in (0, 1))
    crc, replays, recoveries = _fields(ask, handle, (_CRC, _REPLAY, _RECOVERY))
    state, status = _fabric(nvml, ask, handle)
    return {
        "ecc_aggregate": _ecc(ask, handle, _AGGREGATE),
        "sram_threshold_exceeded": _sram_threshold(nvml, ask, handle),
        "remap_banks": None
        if histogram is None
        else [histogram.max, histogram.high, histogram.partial, histogram.low, histogram.none],
        "retired_single_bit": None if single is None else len(single),
        "retired_double_bit": None if double is None else len(double),
        "retirement_pending": None if pending is None else bool(pending),
        "pcie_replays": ask("nvmlDeviceGetPcieReplayCounter", handle),
        **_links(nvml, ask, handle),
        "nvlink_crc_errors": crc,
        "nvlink_replays": replays,
        "nvlink_recoveries": recoveries,
        "fabric_state": state,
        "fabric_status": status,
        "persistence": None if persistence is None else bool(persistence),
        "mig_enabled": None if mig[0] is None else bool(mig[0]),
        "mig_pending": None if mig[1] is None else bool(mig[1]),
    }


def _ecc(ask: Ask, handle: Any, counter: int) -> list[int | None]:
    return [
        ask("nvmlDeviceGetTotalEccErrors", handle, _CORRECTED, counter),
        ask("nvmlDeviceGetTotalEccErrors", handle, _UNCORRECTED, counter),
        ask("nvmlDeviceGetMemoryErrorCounter", handle, _UNCORRECTED, counter, _SRAM),
        ask("nvmlDeviceGetMemoryErrorCounter", handle, _UNCORRECTED, counter, _DRAM),
    ]


def _fields(ask: Ask, handle: Any, numbers: tuple[int, ...]) -> list[int | None]:
    values = ask("nvmlDeviceGetFieldValues", handle, list(numbers))
    if values is None:
        return [None] * len(numbers)
    return [_value(value) for value in values]


def _value(value: Any) -> int | None:
    # Each field has its own answer; an unsigned long is type 2 and long long 3 of nvmlValueType_t, unsigned int 1.
    if value.nvmlReturn != 0:
        return None
    union = value.value
    known = {1: union.uiVal, 2: union.ulVal, 3: union.ullVal, 4: union.sllVal}
    return known.get(value.valueType)


def _sram_threshold(nvml: Any, ask: Ask, handle: Any) -> bool | None:
    kind = getattr(nvml, "c_nvmlEccSramErrorStatus_v1_t", None)
    if kind is None:
        return None
    status = kind()
    return (
        None
        if ask("nvmlDeviceGetSramEccErrorStatus", handle, ctypes.byref(status)) is None
        else bool(status.bThresholdExceeded)
    )


def _fabric(nvml: Any, ask: Ask, handle: Any) -> tuple[str | None, str | None]:
    kind = getattr(nvml, "c_nvmlGpuFabricInfo_t", None)
    if kind is None:
        return None, None
    info = kind()
    if ask("nvmlDeviceGetGpuFabricInfo", handle, ctypes.byref(info)) is None or info.state == 0:
        return None, None
    state = _FABRIC.get(info.state, str(info.state))
    # The status says how it ended, and nothing before it has.
    status = None if state != "completed" else "success" if info.status == 0 else f"nvml error {info.status}"
    return state, status


def _links(nvml: Any, ask: Ask, handle: Any) -> dict[str, Any]:
    active = 0
    inactive = []
    known = False
    for link in range(int(getattr(nvml, "NVML_NVLINK_MAX_LINKS", 18))):
        state = ask("nvmlDeviceGetNvLinkState", handle, link)
        if state is None:
            # Links are numbered without gaps: the first that does not exist is behind the last.
            break
        known = True
        if state:
            active += 1
        else:
            inactive.append(link)
    return {"nvlinks_active": active if known else None, "nvlinks_inactive": inactive}
