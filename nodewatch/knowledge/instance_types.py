"""What hardware an EC2 instance type has: the table in instance_types.toml, read once at import."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from types import MappingProxyType


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceType:
    """One EC2 instance type and the number of GPUs that it has."""

    name: str
    gpus: int
    gpu: str
    source: str


def parse(text: str) -> Mapping[str, InstanceType]:
    """The rows of a table in TOML by name. Raises ValueError or KeyError when a row is not complete."""
    rows = tomllib.loads(text)["types"]
    return MappingProxyType(
        {
            name: InstanceType(name=name, gpus=int(row["gpus"]), gpu=str(row["gpu"]), source=str(row["source"]))
            for name, row in rows.items()
        }
    )


def expected_gpus(instance_type: str) -> int | None:
    """How many GPUs a machine of `instance_type` has; None when the table does not know the type."""
    row = TABLE.get(instance_type)
    return None if row is None else row.gpus


TABLE: Mapping[str, InstanceType] = parse(
    files("nodewatch.knowledge").joinpath("instance_types.toml").read_text(encoding="utf-8")
)
