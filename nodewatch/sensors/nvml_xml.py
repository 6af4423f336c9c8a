"""One GPU from the XML of `nvidia-smi -q -x`, whose element names changed with the generations of the driver."""

from __future__ import annotations

import re
from xml.etree.ElementTree import Element

from nodewatch.model.gpu_samples import EccCounts, Gpu

_NUMBER = re.compile(r"^-?[0-9]{1,15}")
_YES = {"yes", "enabled", "active", "on", "true"}
_NO = {"no", "disabled", "not active", "off", "false"}
_FAILED = ("unknown error", "err!")
_ACTIONS = {
    "none": "none",
    "reset": "gpu_reset",
    "gpu reset": "gpu_reset",
    "gpu reset required": "gpu_reset",
    "reboot": "node_reboot",
    "node reboot": "node_reboot",
    "node reboot required": "node_reboot",
    "drain p2p": "drain_p2p",
    "drain and reset": "drain_and_reset",
    "bus reset": "bus_reset",
    "system reboot": "system_reboot",
    "recover imex domain": "recover_imex_domain",
}
_REASONS = {
    "gpu_idle": "idle",
    "hw_thermal_slowdown": "hw_thermal",
    "hw_power_brake_slowdown": "hw_power_brake",
    "sw_thermal_slowdown": "sw_thermal",
}
_TEMPERATURES = (
    *("gpu_temp", "gpu_temp_tlimit", "gpu_temp_slow_threshold", "gpu_temp_max_threshold", "memory_temp"),
    *("gpu_temp_slow_tlimit_threshold", "gpu_temp_max_tlimit_threshold", "gpu_temp_max_mem_threshold"),
)
_BANKS = ("max", "high", "partial", "low", "none")


def read_gpu(node: Element, index: int) -> Gpu:
    """The GPU that `node` describes. What it does not say, or says in words that are no value, is None."""
    leaves = [(leaf.tag, _said(leaf)) for leaf in node.iter() if len(leaf) == 0]
    texts = {text.lower() for _, text in leaves}
    # A GPU that has fallen off the bus answers each question with this sentence in place of a value.
    lost = next((text for text in texts if "gpu is lost" in text), None)
    links = "pci/pci_gpu_link_info"
    degrees = _temperatures(node)
    throttle, braked = _slowdown_times(node)
    return Gpu(
        index=index,
        uuid=_name(node, "uuid") or "",
        pci_bus_id=_name(node, "pci/pci_bus_id") or (node.get("id") or ""),
        serial=_name(node, "serial"),
        name=_name(node, "product_name"),
        is_lost=lost is not None,
        lost_because=None if lost is None else lost[:200],
        failed_fields=tuple(sorted({tag for tag, text in leaves if text.lower().strip("[]") in _FAILED})),
        remap_pending=_flag(node, "remapped_rows/remapped_row_pending"),
        # Drivers of 2025 (R590) say the same of a board as a whole: its memory has no repair left.
        remap_failed=_flag(node, "ecc_errors/unrepairable_memory") or _flag(node, "remapped_rows/remapped_row_failure"),
        remapped_correctable=_number(node, "remapped_rows/remapped_row_corr"),
        remapped_uncorrectable=_number(node, "remapped_rows/remapped_row_unc"),
        remap_banks=_banks(node),
        retired_single_bit=_number(node, "retired_pages/multiple_single_bit_retirement/retired_count"),
        retired_double_bit=_number(node, "retired_pages/double_bit_retirement/retired_count"),
        retirement_pending=_flag(node, "retired_pages/pending_retirement", "retired_pages/pending_blacklist"),
        ecc_enabled=_flag(node, "ecc_mode/current_ecc"),
        ecc_volatile=_ecc(node.find("ecc_errors/volatile")),
        ecc_aggregate=_ecc(node.find("ecc_errors/aggregate")),
        sram_threshold_exceeded=_flag(node, "ecc_errors/aggregate/sram_threshold_exceeded"),
        repair_pending=_either(node, "ecc_errors/channel_repair_pending", "ecc_errors/tpc_repair_pending"),
        temperature_c=degrees["gpu_temp"],
        temperature_margin_c=degrees["gpu_temp_tlimit"],
        slowdown_at_c=degrees["gpu_temp_slow_threshold"],
        shutdown_at_c=degrees["gpu_temp_max_threshold"],
        slowdown_margin_c=degrees["gpu_temp_slow_tlimit_threshold"],
        shutdown_margin_c=degrees["gpu_temp_max_tlimit_threshold"],
        memory_temperature_c=degrees["memory_temp"],
        memory_max_c=degrees["gpu_temp_max_mem_threshold"],
        clock_reasons=_reasons(node),
        hw_thermal_us=throttle,
        hw_power_brake_us=braked,
        performance_state=_state(node),
        utilization_percent=_number(node, "utilization/gpu_util"),
        pcie_generation=_number(
            node, f"{links}/pcie_gen/device_current_link_gen", f"{links}/pcie_gen/current_link_gen"
        ),
        pcie_generation_max=_number(node, f"{links}/pcie_gen/max_link_gen"),
        pcie_width=_number(node, f"{links}/link_widths/current_link_width"),
        pcie_width_max=_number(node, f"{links}/link_widths/max_link_width"),
        pcie_replays=_number(node, "pci/replay_counter"),
        fabric_state=_fabric_state(node),
        fabric_status=(_name(node, "fabric/status") or "").lower() or None,
        fabric_faults=_fabric_faults(node),
        recovery_action=_recovery(node, texts),
        persistence=_flag(node, "persistence_mode"),
        mig_enabled=_flag(node, "mig_mode/current_mig"),
        mig_pending=_flag(node, "mig_mode/pending_mig"),
        memory_total_mib=_number(node, "fb_memory_usage/total"),
    )


def _said(node: Element | None) -> str:
    return "" if node is None or node.text is None else node.text.strip()


def _name(node: Element, path: str) -> str | None:
    text = _said(node.find(path))
    low = text.lower().strip("[]")
    is_none = low in ("", "n/a", "none", *_FAILED) or low.startswith(
        ("not ", "gpu is lost", "gpu requires", "requested")
    )
    # "None" is a value of a few fields that are not read with this.
    return None if is_none and not low.startswith("not started") else text


def _number(node: Element, *paths: str) -> int | None:
    for path in paths:
        found = _NUMBER.match(_said(node.find(path)))
        if found is not None:
            return int(found[0])
    return None


def _flag(node: Element, *paths: str) -> bool | None:
    for path in paths:
        text = _said(node.find(path)).lower()
        if text in _YES:
            return True
        if text in _NO:
            return False
    return None


def _either(node: Element, *paths: str) -> bool | None:
    flags = [_flag(node, path) for path in paths]
    return True if True in flags else False if False in flags else None


def _banks(node: Element) -> tuple[int, int, int, int, int] | None:
    root = "remapped_rows/row_remapper_histogram/row_remapper_histogram_"
    counts = [_number(node, root + name) for name in _BANKS]
    most, high, partial, low, none = (count or 0 for count in counts)
    return None if any(count is None for count in counts) else (most, high, partial, low, none)


def _ecc(node: Element | None) -> EccCounts | None:
    if node is None:
        return None
    if node.find("double_bit") is not None or node.find("single_bit") is not None:
        # Before Ampere: a total, and the places that it comes from.
        total = _number(node, "double_bit/total")
        dram = _number(node, "double_bit/device_memory")
        return EccCounts(
            correctable=_number(node, "single_bit/total"),
            uncorrectable=total if total is not None else dram,
            dram_uncorrectable=dram,
            sram_uncorrectable=None if total is None or dram is None else max(0, total - dram),
        )
    sram = _sum(node, "sram_uncorrectable", "sram_uncorrectable_parity", "sram_uncorrectable_secded")
    dram = _number(node, "dram_uncorrectable")
    known = [count for count in (sram, dram) if count is not None]
    return EccCounts(
        correctable=_sum(node, "sram_correctable", "dram_correctable"),
        uncorrectable=sum(known) if known else None,
        sram_uncorrectable=sram,
        dram_uncorrectable=dram,
    )


def _sum(node: Element, *paths: str) -> int | None:
    counts = [count for path in paths if (count := _number(node, path)) is not None]
    return sum(counts) if counts else None


def _temperatures(node: Element) -> dict[str, int | None]:
    return {name: _number(node, f"temperature/{name}") for name in _TEMPERATURES}


def _reasons(node: Element) -> frozenset[str] | None:
    block = node.find("clocks_event_reasons")
    if block is None:
        block = node.find("clocks_throttle_reasons")
    if block is None or len(block) == 0:
        return None
    active = set()
    known = False
    for child in block:
        said = _said(child).lower()
        known = known or said in (*_YES, *_NO)
        if said in _YES:
            name = child.tag.rpartition("_reason_")[2]
            active.add(_REASONS.get(name, name))
    return frozenset(active) if known else None


def _slowdown_times(node: Element) -> tuple[int | None, int | None]:
    root = "clocks_event_reasons_counters/clocks_event_reasons_counters_"
    return _number(node, root + "hw_therm_slowdown"), _number(node, root + "hw_power_brake")


def _state(node: Element) -> int | None:
    found = re.fullmatch(r"P([0-9]{1,2})", _said(node.find("performance_state")))
    return None if found is None else int(found[1])


def _fabric_state(node: Element) -> str | None:
    text = (_name(node, "fabric/state") or "").lower().replace(" ", "_")
    return text or None


def _fabric_faults(node: Element) -> tuple[str, ...]:
    health = node.find("fabric/health")
    if health is None:
        return ()
    return tuple(f"{child.tag}: {_said(child)}" for child in health if _is_fault(child.tag, _said(child).lower()))


def _is_fault(tag: str, said: str) -> bool:
    if tag == "incorrect_configuration":
        is_value = said not in ("", "n/a", "[n/a]", "none", "false", "no", *_FAILED)
        return is_value and not said.startswith(("gpu ", "not ", "requested "))
    return said in ("degraded", "unhealthy", "true", "yes") or said.startswith("limited")


def _recovery(node: Element, texts: set[str]) -> str | None:
    said = _said(node.find("gpu_recovery_action")).lower()
    if said in _ACTIONS:
        action: str | None = _ACTIONS[said]
    elif said.strip("[]") in ("", "n/a", "not supported", *_FAILED) or said.startswith(("gpu ", "requested ")):
        action = None
    else:
        action = said[:60]
    if action is None:
        reset = _flag(node, "gpu_reset_status/reset_required")
        drain = _flag(node, "gpu_reset_status/drain_and_reset_recommended")
        action = "gpu_reset" if reset else "drain_and_reset" if drain else None if reset is None else "none"
    # Said in place of values, whatever the field is called.
    if action in (None, "none") and any("gpu requires reset" in text for text in texts):
        action = "gpu_reset"
    return action
