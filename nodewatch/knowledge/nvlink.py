"""What the words of an NVLink Xid mean: the tables in nvlink.toml, read once at import."""

from __future__ import annotations

import enum
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from types import MappingProxyType
from typing import Any

KINDS = ("ignore", "secondary", "ecc", "hardware", "signal", "repeated", "fabric", "threshold", "unexpected")
"""What a bit of a register of Xid 74 means; nvlink.toml says each in a sentence."""


class Action(enum.Enum):
    """What the catalogue does at once about one of Xid 144 to 150."""

    RESET_GPU = "reset"
    FOLLOW_154 = "follow_154"
    IGNORE = "ignore"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """How the error status of one unit of the NVLink hardware is read. Sets of bits are masks."""

    xid: int
    names: tuple[str, ...]
    always: Action | None = None
    reset: int = 0
    follow_154: int = 0
    ignore: int = 0
    promoted: int = 0
    reset_values: frozenset[int] = frozenset()
    ignore_values: frozenset[int] = frozenset()
    reset_reasons: frozenset[int] = frozenset()
    ignore_reasons: frozenset[int] = frozenset()

    def action(self, interrupt: int, status: int, *, is_fatal: bool) -> Action | None:
        """The action for one line; None when the table does not know these words."""
        if self.always is not None:
            return self.always
        if self.reset_reasons:
            return _by_value(interrupt >> 20 & 0x3F, self.reset_reasons, self.ignore_reasons)
        if self.reset_values:
            return _by_value(status, self.reset_values, self.ignore_values)
        if status & self.reset or (status & self.promoted and is_fatal):
            return Action.RESET_GPU
        if status & ~(self.follow_154 | self.ignore | self.promoted) or not status:
            return None
        return Action.FOLLOW_154 if status & self.follow_154 else Action.IGNORE


def _by_value(value: int, reset: frozenset[int], ignore: frozenset[int]) -> Action | None:
    if value in reset:
        return Action.RESET_GPU
    return Action.IGNORE if value in ignore else None


def kinds_of(registers: Sequence[int]) -> frozenset[str]:
    """What the set bits of the seven registers of an Xid 74 mean; "unknown" for one that the table does not name."""
    found = set()
    for number, bits in BITS.items():
        value = registers[number - 1] if number <= len(registers) else 0
        found |= {bits.get(bit, "unknown") for bit in range(value.bit_length()) if value >> bit & 1}
    return frozenset(found)


def unit_of(xid: int, name: str) -> Unit | None:
    """The unit that a line of number `xid` names, None for one that is in no row."""
    return UNITS.get((xid, name))


def parse(text: str) -> tuple[Mapping[int, Mapping[int, str]], Mapping[tuple[int, str], Unit]]:
    """Registers with the kind of each bit, and units. Raises ValueError or KeyError when a row is not complete."""
    tables = tomllib.loads(text)
    bits = {int(row["register"]): _bits(row) for row in tables["xid74"]}
    units = {(unit.xid, name): unit for row in tables["unit"] for unit in [_unit(row)] for name in unit.names}
    return MappingProxyType(bits), MappingProxyType(units)


def _bits(row: Mapping[str, Any]) -> Mapping[int, str]:
    kinds: dict[int, str] = {}
    for kind, numbers in row.items():
        if kind == "register":
            continue
        if kind not in KINDS:
            raise ValueError(f"{kind!r} is no kind of bit: use one of {', '.join(KINDS)}")
        for number in numbers:
            if number in kinds:
                raise ValueError(f"bit {number} of register {row['register']} stands twice")
            kinds[number] = kind
    return MappingProxyType(kinds)


def _unit(row: Mapping[str, Any]) -> Unit:
    def mask(name: str) -> int:
        return sum(set(row.get(name, ())))

    def values(name: str) -> frozenset[int]:
        return frozenset(row.get(name, ()))

    return Unit(
        xid=int(row["xid"]),
        names=tuple(row["names"]),
        always=Action(row["always"]) if "always" in row else None,
        reset=mask("reset"),
        follow_154=mask("follow_154"),
        ignore=mask("ignore"),
        promoted=mask("promoted"),
        reset_values=values("reset_values"),
        ignore_values=values("ignore_values"),
        reset_reasons=values("reset_reasons"),
        ignore_reasons=values("ignore_reasons"),
    )


BITS, UNITS = parse(files("nodewatch.knowledge").joinpath("nvlink.toml").read_text(encoding="utf-8"))
