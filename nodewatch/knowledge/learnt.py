"""Rows about instance types that the built-in table does not know: learnt on a machine, reviewed, read from the site's file.

    [types."p9.48xlarge"]
    gpus = 8
    gpu = "NVIDIA H900"
    nvlinks_per_gpu = 18
    gpu_memory_mib = 183359
    neuron_devices = 0
    efa_devices = 32
    vcpus = 192
    memory_gib = 2048
    nccl_floor = [[1073741824, 397.8]]
    nccl_why = "90 % of what was measured"
    source = ["learnt on n1 2026-11-24"]

Only gpus, vcpus, memory_gib and source must be there.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from nodewatch.knowledge.instance_types import InstanceType

_FIELDS = {field.name for field in fields(InstanceType)} - {"name"}
_REQUIRED = ("gpus", "vcpus", "memory_gib", "source")
_TEXTS = ("gpu", "nccl_why")
_SPEEDS = ("nccl_floor", "nccl_least")
_COMPARED = ("gpus", "nvlinks_per_gpu", "neuron_devices", "efa_devices", "vcpus", "memory_gib", "nccl_floor")
_NOMINAL = 0.9
"""Memory is told by its makers' number and seen as a few per cent less: within a tenth is the same machine."""


def parse_learnt(text: str, *, where: str) -> Mapping[str, InstanceType]:
    """The rows in `text` by name. Raises ValueError with one sentence that names `where`, the row and what is wrong."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{where} is not valid TOML: {error}") from error
    rows = data.pop("types", {})
    if data or not isinstance(rows, Mapping):
        raise ValueError(
            f'{where}: it holds tables [types."NAME"] and nothing else, not {", ".join(data) or "a value"}'
        )
    return {str(name): _row(str(name), row, f'{where}: [types."{name}"]') for name, row in rows.items()}


def contradiction(row: InstanceType, known: InstanceType) -> str | None:
    """What `row` says otherwise than the table's `known`; None when they agree. What either leaves open agrees."""
    for name in _COMPARED:
        learnt, told = getattr(row, name), getattr(known, name)
        if learnt in (None, ()) or told in (None, ()) or learnt == told:
            continue
        if name == "memory_gib" and min(learnt, told) >= _NOMINAL * max(learnt, told):
            continue
        return f"{name} is {_plain(learnt)} here and {_plain(told)} in the built-in table ({known.source})"
    return None


def to_toml(row: InstanceType) -> str:
    """`row` as `parse_learnt` reads it."""
    lines = [f"[types.{json.dumps(row.name)}]"]
    for field in fields(InstanceType):
        value = getattr(row, field.name)
        if field.name in ("name", "source") or value is None or (field.name in (*_TEXTS, *_SPEEDS) and not value):
            continue
        lines.append(f"{field.name} = {_plain(value)}")
    lines.append(f"source = [{json.dumps(row.source)}]")
    return "\n".join(lines) + "\n"


def _plain(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(f"[{size}, {speed:g}]" for size, speed in value) + "]"
    return json.dumps(value)


def _row(name: str, row: Any, where: str) -> InstanceType:
    if not isinstance(row, Mapping):
        raise ValueError(f"{where} must be a table")
    for key in row:
        if key not in _FIELDS:
            raise ValueError(f"{where}: unknown key {key!r}; the known keys are {', '.join(sorted(_FIELDS))}")
    for key in _REQUIRED:
        if key not in row:
            raise ValueError(f"{where}: the key {key!r} is required and missing")
    values: dict[str, Any] = {}
    for key, value in row.items():
        if key == "source":
            if not isinstance(value, list) or not value or not all(isinstance(part, str) and part for part in value):
                raise ValueError(f'{where}: source must be a list of texts, such as ["learnt on n1 2026-11-24"]')
            values[key] = ", ".join(value)
        elif key in _SPEEDS:
            values[key] = _speeds(value, f"{where}: {key}")
        elif key in _TEXTS:
            if not isinstance(value, str):
                raise ValueError(f"{where}: {key} must be text in quotes, not {value!r}")
            values[key] = value
        elif isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 31:
            raise ValueError(f"{where}: {key} must be a whole number from 0 on, not {value!r}")
        else:
            values[key] = value
    return InstanceType(name=name, gpu=values.pop("gpu", ""), **values)


def _speeds(value: Any, where: str) -> tuple[tuple[int, float], ...]:
    try:
        speeds = tuple((int(size), float(speed)) for size, speed in value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where} must be a list of [bytes, GB/s], not {value!r}") from error
    sizes = [size for size, _ in speeds]
    if sizes != sorted(set(sizes)) or any(size <= 0 or not 0 < speed < 1e6 for size, speed in speeds):
        raise ValueError(f"{where}: sizes must rise and speeds be above 0")
    return speeds
