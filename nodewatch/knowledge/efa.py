"""What fabric counters mean, and what NCCL reaches between machines: the table in efa.toml, read once at import."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Counter:
    """What a rise of one counter means. `is_remote` where a peer, or the way to it, makes it rise."""

    name: str
    is_remote: bool
    why: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Across:
    """The all-reduce bus bandwidth that `machines` machines of one type must reach: (bytes, GB/s), sizes rising."""

    machines: int
    floor: tuple[tuple[int, float], ...]
    why: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Fabric:
    """The whole table: counters by name, floors by instance type."""

    counters: Mapping[str, Counter]
    across: Mapping[str, Across]


def parse(text: str) -> Fabric:
    """The table in TOML. Raises ValueError or KeyError when a row is not complete or not told whence."""
    data = tomllib.loads(text)
    for row in [*data["counters"].values(), *data["across"].values()]:
        if row["source"] not in data["source"]:
            raise ValueError(f"the source {row['source']!r} is not in [source]")
    return Fabric(
        counters=MappingProxyType({name: _counter(name, row) for name, row in data["counters"].items()}),
        across=MappingProxyType({name: _across(name, row) for name, row in data["across"].items()}),
    )


def _counter(name: str, row: Mapping[str, Any]) -> Counter:
    if row["about"] not in ("local", "remote"):
        raise ValueError(f"{name}: about is local or remote, not {row['about']!r}")
    return Counter(name=name, is_remote=row["about"] == "remote", why=str(row["why"]), source=str(row["source"]))


def _across(name: str, row: Mapping[str, Any]) -> Across:
    floor = tuple((int(size), float(speed)) for size, speed in row["floor"])
    if not floor or list(floor) != sorted(floor):
        raise ValueError(f"{name}: the sizes of its floor do not rise")
    return Across(machines=int(row["machines"]), floor=floor, why=str(row["why"]), source=str(row["source"]))


TABLE: Fabric = parse(files("nodewatch.knowledge").joinpath("efa.toml").read_text(encoding="utf-8"))
