"""What hardware an EC2 instance type has: the table in instance_types.toml, read once at import."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceType:
    """One EC2 instance type. `source` names the rows of the table's [source] that its numbers are from."""

    name: str
    gpus: int
    gpu: str
    """The model, empty for none."""
    source: str
    nvlinks_per_gpu: int = 0
    gpu_memory_mib: int = 0
    """Of one GPU, as nvidia-smi totals it; drivers differ by 1 or 2 %."""
    neuron_devices: int = 0
    efa_devices: int | None = None
    """None where a machine is usually launched without the one that it could have: nothing is expected then."""
    vcpus: int = 0
    memory_gib: int = 0
    """Of the host; what Linux counts is a few per cent less."""
    nccl_floor: tuple[tuple[int, float], ...] = ()
    """(message size in bytes, all-reduce bus bandwidth in GB/s) on all GPUs of one machine, sizes rising; slower is a fault."""
    nccl_least: tuple[tuple[int, float], ...] = ()
    """As `nccl_floor`, what the links reach without the switches' help (NVLink SHARP); empty where there is none.

    Between the two a run is slow for a reason that may be its settings alone."""
    nccl_why: str = ""


def parse(text: str) -> Mapping[str, InstanceType]:
    """The rows of a table in TOML by name. Raises ValueError or KeyError when a row is not complete or not told whence."""
    data = tomllib.loads(text)
    for name in data["nccl"]:
        if name not in data["types"]:
            raise ValueError(f"[nccl] has {name}, [types] has not")
    return MappingProxyType({name: _row(name, row, data) for name, row in data["types"].items()})


def _row(name: str, row: Mapping[str, Any], data: Mapping[str, Any]) -> InstanceType:
    model: Mapping[str, Any] = data["gpu"][row["gpu"]] if row["gpu"] else {"nvlinks": 0, "memory_mib": 0, "source": []}
    nccl = data["nccl"].get(name, {"floor": [], "why": "", "source": []})
    sources = [*row["source"], *model["source"], *nccl["source"]]
    for source in sources:
        if source not in data["source"]:
            raise ValueError(f"{name}: the source {source!r} is not in [source]")
    floor, least = (_speeds(name, nccl.get(key, [])) for key in ("floor", "least"))
    efa = row.get("efa_devices")
    return InstanceType(
        name=name,
        gpus=int(row["gpus"]),
        gpu=str(row["gpu"]),
        source=", ".join(dict.fromkeys(sources)),
        nvlinks_per_gpu=int(row.get("nvlinks", model["nvlinks"])),
        gpu_memory_mib=int(model["memory_mib"]),
        neuron_devices=int(row.get("neuron_devices", 0)),
        efa_devices=None if efa is None else int(efa),
        vcpus=int(row["vcpus"]),
        memory_gib=int(row["memory_gib"]),
        nccl_floor=floor,
        nccl_least=least,
        nccl_why=str(nccl["why"]),
    )


def _speeds(name: str, rows: Sequence[Sequence[float]]) -> tuple[tuple[int, float], ...]:
    speeds = tuple((int(size), float(speed)) for size, speed in rows)
    if list(speeds) != sorted(speeds):
        raise ValueError(f"{name}: the sizes of its NCCL floor do not rise")
    return speeds


def expected_gpus(instance_type: str) -> int | None:
    """How many GPUs a machine of `instance_type` has; None when the table does not know the type."""
    row = TABLE.get(instance_type)
    return None if row is None else row.gpus


def add(rows: Mapping[str, InstanceType]) -> None:
    """Let TABLE know the types that a site learnt. At start-up only, before anything is read from it; known ones stay."""
    for name, row in rows.items():
        _ROWS.setdefault(name, row)


_ROWS = dict(parse(files("nodewatch.knowledge").joinpath("instance_types.toml").read_text(encoding="utf-8")))
TABLE: Mapping[str, InstanceType] = MappingProxyType(_ROWS)
