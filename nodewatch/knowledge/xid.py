"""What each NVIDIA Xid number means: the table in xid.toml, read once at import.

The kernel log of the NVIDIA driver names every fault by such a number. NVIDIA publishes an action for each, others publish
lists that disagree; the table holds the action, our choice and the reason, so that a site can review and change it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from types import MappingProxyType
from typing import Any

from nodewatch.model.health import Remedy, Severity, remedy_of, severity_of


@dataclass(frozen=True, slots=True, kw_only=True)
class TextRule:
    """Severity and remedy for a line that has `word` after the number."""

    word: str
    severity: Severity
    remedy: Remedy


@dataclass(frozen=True, slots=True, kw_only=True)
class Xid:
    """One row of the table. `nvidia` is the catalogue's action class; `disagrees` says what other lists do instead."""

    number: int
    name: str
    nvidia: str
    severity: Severity
    remedy: Remedy
    why: str
    source: str
    disagrees: str = ""
    text: tuple[TextRule, ...] = ()

    def judge(self, rest_of_line: str) -> tuple[Severity, Remedy]:
        """What a line of this number amounts to, given the text that follows the number."""
        said = rest_of_line
        if self.number == 154:
            # "changed from 0x1 (GPU Reset Required) to 0x0 (None)": the old action must not be taken for the new one.
            said = rest_of_line.rpartition(" to ")[2]
        for rule in self.text:
            if rule.word in said:
                return rule.severity, rule.remedy
        return self.severity, self.remedy


def parse(text: str) -> Mapping[int, Xid]:
    """The rows of a table in TOML by number. Raises ValueError or KeyError when a row is not complete or stands twice."""
    rows: dict[int, Xid] = {}
    for row in tomllib.loads(text)["xid"]:
        xid = _row(row)
        if xid.number in rows:
            raise ValueError(f"Xid {xid.number} stands twice in the table")
        rows[xid.number] = xid
    return MappingProxyType(rows)


def _row(row: Mapping[str, Any]) -> Xid:
    rules = tuple(
        TextRule(word=rule["word"], severity=severity_of(rule["severity"]), remedy=remedy_of(rule["remedy"]))
        for rule in row.get("text", ())
    )
    return Xid(
        number=int(row["number"]),
        name=str(row["name"]),
        nvidia=str(row["nvidia"]),
        severity=severity_of(row["severity"]),
        remedy=remedy_of(row["remedy"]),
        why=str(row["why"]),
        source=str(row["source"]),
        disagrees=str(row.get("disagrees", "")),
        text=rules,
    )


def lookup(number: int) -> Xid:
    """The row of `number`; for a number that nobody has described, a warning that asks for a human."""
    return TABLE.get(number) or Xid(
        number=number,
        name="",
        nvidia="UNKNOWN",
        severity=Severity.WARN,
        remedy=Remedy.HUMAN,
        why="The number is in no catalogue that we know: nothing destructive follows from it.",
        source="none",
    )


TABLE: Mapping[int, Xid] = parse(files("nodewatch.knowledge").joinpath("xid.toml").read_text(encoding="utf-8"))
