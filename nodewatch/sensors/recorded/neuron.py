"""Neuron devices (Trainium, Inferentia): `neuron-ls` as table or JSON, `neuron-monitor`, or a tree like neuron_device in sysfs.

The tree is /sys/devices/virtual/neuron_device, or a directory above it. Where in it a counter lies has changed with the
driver (2.31), its name has not: it is looked for by name. neuron-monitor writes one report a line: each is judged.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nodewatch.errors import SensorError
from nodewatch.knowledge import instance_types
from nodewatch.model.cloud_samples import NeuronDevice, NeuronSample
from nodewatch.sensors.recorded._api import Recording
from nodewatch.sensors.recorded._text import decoded, lines, shown

_NONE_FOUND = re.compile(
    r"no neuron devices? found|neuron(?:-ls)?.*driver.*not|driver.*not (?:loaded|installed)", re.IGNORECASE
)
_TABLE = re.compile(r"^\|\s*NEURON\s*\|.*NEURON|^\|\s*PCI BDF\s*\|", re.IGNORECASE)
_BDF = re.compile(r"^(?:[0-9a-f]{4}:)?[0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f]$", re.IGNORECASE)
_ECC = re.compile(r"\w+_ecc_(?:\w+_)?(?:un)?corrected")
_STATUS = re.compile(r"hw_\w*err\w*|success|failure|timeout|\w+_error|exec_bad_input")
_TYPE = re.compile(r"^instance-type: +([a-z][\w.-]{1,40})\s*$")
_MANY = 512


def load(recording: Recording) -> Iterator[NeuronSample]:
    """One sample, or one for each report of neuron-monitor. Raises SensorError for anything else."""
    if recording.path.is_dir():
        devices = _tree(recording.path)
        previous = None if recording.previous is None else _tree(recording.previous)
        yield _sample(recording.instance_type, devices=devices, count=len(devices), previous=previous, source="sysfs")
        return
    data = recording.read()
    text = decoded(data).strip()
    if text.startswith("[") or (text.startswith("{") and '"neuron_device"' in text):
        yield _listed(text, recording)
    elif text.startswith("{"):
        yield from _reports(text, recording)
    else:
        yield _table(lines(data), recording)


def _sample(
    instance_type: str,
    *,
    devices: tuple[NeuronDevice, ...] = (),
    count: int | None = None,
    runtime_errors: Mapping[str, int] | None = None,
    previous: tuple[NeuronDevice, ...] | None = None,
    said: str | None = None,
    source: str,
) -> NeuronSample:
    row = instance_types.TABLE.get(instance_type)
    return NeuronSample(
        devices=devices,
        count=count,
        expected=None if row is None else row.neuron_devices,
        runtime_errors=runtime_errors or {},
        previous=previous,
        said=said,
        source=source,
    )


def _tree(path: Path) -> tuple[NeuronDevice, ...]:
    if not path.is_dir():
        raise SensorError(f"{path} is no directory: record /sys/devices/virtual/neuron_device")
    places = [path]
    for below in ("neuron_device", "virtual/neuron_device", "devices/virtual/neuron_device", "class/neuron_device"):
        places += [path / below, path / "sys" / below]
    for place in places:
        found = [entry for entry in _entries(place) if re.fullmatch(r"neuron[0-9]{1,4}", entry.name) and entry.is_dir()]
        if found or (place.name == "neuron_device" and place.is_dir()):
            return tuple(sorted((_device(entry) for entry in found[:_MANY]), key=lambda device: device.index))
    raise SensorError(f"{path} holds no directory like /sys/devices/virtual/neuron_device: record that tree")


def _device(place: Path) -> NeuronDevice:
    ecc: dict[str, int] = {}
    executions: dict[str, int] = {}
    unreadable: list[str] = []
    for entry in _named(place, _ECC, depth=4):
        value = _counter(entry)
        if value is None:
            unreadable.append(entry.name)
        else:
            ecc[entry.name] = ecc.get(entry.name, 0) + value
    for core in _entries(place):
        if re.fullmatch(r"neuron_core[0-9]{1,4}", core.name):
            for entry in _named(core, _STATUS, depth=4):
                value = _counter(entry)
                if value is not None:
                    executions[entry.name] = executions.get(entry.name, 0) + value
    index = int(place.name.removeprefix("neuron"))
    return NeuronDevice(index=index, ecc=ecc, executions=executions, unreadable=tuple(unreadable))


def _named(place: Path, pattern: re.Pattern[str], *, depth: int) -> Iterator[Path]:
    """What has such a name, up to `depth` directories below `place`, without following links or looking into cores."""
    for entry in _entries(place):
        if pattern.fullmatch(entry.name):
            yield entry
        elif depth > 1 and not entry.name.startswith("neuron_core") and entry.is_dir() and not entry.is_symlink():
            yield from _named(entry, pattern, depth=depth - 1)


def _counter(entry: Path) -> int | None:
    """A counter is a directory with a file `total`, a plain value a file."""
    place = (entry / "total") if entry.is_dir() else entry
    try:
        # A pipe or a device in a recording would be waited for, or never end.
        if not place.is_file():
            return None
        with place.open("rb") as stream:
            text = stream.read(64).decode("ascii").strip()
    except (OSError, ValueError):
        return None
    return int(text) if re.fullmatch(r"[0-9]{1,20}", text) else None


def _entries(place: Path) -> list[Path]:
    try:
        return sorted(place.iterdir())[: _MANY * 8]
    except OSError:
        return []


def _listed(text: str, recording: Recording) -> NeuronSample:
    items = _json(text, str(recording.path))
    # Up to Neuron 2.33 a bare list; from 2.34 on an object that tells of the machine beside the list of devices.
    outer = items if isinstance(items, dict) else {}
    for value in outer.values():
        if (
            isinstance(value, list)
            and value
            and all(isinstance(item, dict) and "neuron_device" in item for item in value)
        ):
            items = value
    if not isinstance(items, list) or not all(isinstance(item, dict) and "neuron_device" in item for item in items):
        raise SensorError(f"{recording.path} is no output of neuron-ls -j: its items have no neuron_device")
    indices = {_whole(item["neuron_device"]) for item in items}
    if None in indices:
        raise SensorError(f"{recording.path} has a neuron_device without a number")
    told = next((str(item["instance_type"]) for item in (outer, *items) if item.get("instance_type")), "")
    devices = tuple(NeuronDevice(index=index) for index in sorted(index for index in indices if index is not None))
    return _sample(recording.instance_type or told, devices=devices, count=len(devices), source="neuron-ls")


def _table(text: list[str], recording: Recording) -> NeuronSample:
    devices: dict[int, None] = {}
    has_table = False
    rule = told = ""
    for line in text:
        said = _TYPE.match(line.strip())
        told = said[1] if said else told
        if _NONE_FOUND.search(line):
            return _sample(recording.instance_type or told, count=0, said=shown(line), source="neuron-ls")
        stripped = line.strip()
        has_table = has_table or bool(_TABLE.match(stripped))
        if stripped.startswith(("+", "|")) and has_table:
            rule = stripped
        cells = [cell.strip() for cell in stripped.strip("|").split("|")]
        if not has_table or not stripped.startswith("|") or not any(_BDF.match(cell) for cell in cells):
            continue
        numbers = [cell for cell in cells[:2] if re.fullmatch(r"[0-9]{1,4}", cell)]
        if not numbers or not stripped.endswith("|"):
            raise SensorError(f"a row of neuron-ls cannot be read ({shown(line, at_most=80)}): it was cut off")
        devices[int(numbers[0])] = None
    if not has_table:
        raise SensorError(f"{recording.path} is no output of neuron-ls or neuron-monitor: record neuron-ls -j")
    if not re.fullmatch(r"\+[-+]*\+", rule):
        raise SensorError("the table of neuron-ls has no line below it: it was cut off")
    found = tuple(NeuronDevice(index=index) for index in sorted(devices))
    return _sample(recording.instance_type or told, devices=found, count=len(found), source="neuron-ls")


def _reports(text: str, recording: Recording) -> Iterator[NeuronSample]:
    decoder = json.JSONDecoder()
    position, previous = 0, None
    while position < len(text):
        try:
            report, position = decoder.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            raise SensorError(f"a report of neuron-monitor is no JSON ({shown(str(error))}): it was cut off") from error
        sample = _report(report, recording.instance_type, previous)
        previous = sample.devices
        yield sample
        while position < len(text) and text[position].isspace():
            position += 1


def _report(report: object, instance_type: str, previous: tuple[NeuronDevice, ...] | None) -> NeuronSample:
    system = _inner(report, "system_data")
    hardware, counters = _inner(report, "neuron_hardware_info"), _inner(system, "neuron_hw_counters")
    for part in (hardware, counters):
        if part.get("error"):
            raise SensorError(f"neuron-monitor could not read the devices: {shown(str(part['error']))}")
    runtimes = report.get("neuron_runtime_data") if isinstance(report, dict) else None
    listed = counters.get("neuron_devices")
    if not isinstance(listed, list) and not hardware and not isinstance(runtimes, list):
        raise SensorError("the JSON is no report of neuron-monitor: it has no counters of devices and no runtimes")
    devices = tuple(_counted(item) for item in listed) if isinstance(listed, list) else ()
    count = _whole(hardware.get("neuron_device_count"))
    errors: dict[str, int] = {}
    for runtime in runtimes if isinstance(runtimes, list) else ():
        summary = _inner(_inner(_inner(runtime, "report"), "execution_stats"), "error_summary")
        for name, value in summary.items():
            number = _whole(value)
            errors[str(name)] = errors.get(str(name), 0) + (number or 0)
    if not devices and count is None and not errors:
        raise SensorError(
            "the report of neuron-monitor has no device and no execution: add its group neuron_hw_counters"
        )
    told = str(_inner(report, "instance_info").get("instance_type") or "")
    return _sample(
        instance_type or told,
        devices=devices,
        count=len(devices) if count is None and devices else count,
        runtime_errors=errors,
        previous=previous,
        source="neuron-monitor",
    )


def _counted(item: object) -> NeuronDevice:
    index = _whole(item.get("neuron_device_index")) if isinstance(item, dict) else None
    if not isinstance(item, dict) or index is None:
        raise SensorError("a device in neuron-monitor's report has no number")
    ecc: dict[str, int] = {}
    unreadable = []
    for name, value in item.items():
        if "ecc" in str(name):
            number = _whole(value)
            if number is None:
                unreadable.append(str(name))
            else:
                ecc[str(name)] = number
    return NeuronDevice(index=index, ecc=ecc, unreadable=tuple(unreadable))


def _inner(value: object, name: str) -> Mapping[str, Any]:
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, dict) else {}


def _whole(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e18:
        return None
    return int(value)


def _json(text: str, name: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SensorError(f"{name} is no JSON ({shown(str(error))}): it was cut off") from error
