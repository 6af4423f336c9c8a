"""What DCGM's severities, error ids and exit codes amount to: the table in dcgm.toml, read once at import."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from types import MappingProxyType
from typing import Any

from nodewatch.knowledge.xid import TABLE as XIDS
from nodewatch.model.health import Remedy, Severity, remedy_of, severity_of

CONFIG = 5
"""DCGM_ERROR_CONFIG: the machine's settings, never its hardware."""

XID_ERROR = 101
"""DCGM_FR_XID_ERROR: an Xid was logged while DCGM looked; which one stands in the text."""
_XID = re.compile(r"\bXID\b\D{0,24}?(?P<number>[0-9]{1,3})\b", re.IGNORECASE)

TOOL_CATEGORIES = frozenset({3, 4, 7, 16})
"""Categories about the diagnostic's own software: configuration, library, EUD plugin, internal."""
SHARED_CATEGORIES = frozenset({1, 2, 6, 8})
"""Categories that a wrong driver or library causes on every GPU alike: performance, CUDA, other software."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What an error amounts to, and why."""

    name: str
    severity: Severity
    remedy: Remedy
    why: str
    is_configuration: bool = False
    category: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DcgmSeverity:
    """One of DCGM's severities, and what a test that failed with it amounts to."""

    number: int
    name: str
    severity: Severity
    remedy: Remedy
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DcgmErrorRow:
    """One error id. `own` holds our severity and remedy where they differ from those of its DCGM severity."""

    id: int
    name: str
    dcgm: int
    category: int
    source: str
    own: tuple[Severity, Remedy] | None = None
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitMeaning:
    """What an exit code of `dcgmi diag` says: pass, found, config, unknown or deploy."""

    code: int
    name: str
    means: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """The whole of dcgm.toml."""

    severities: Mapping[int, DcgmSeverity]
    errors: Mapping[int, DcgmErrorRow]
    exits: Mapping[int, ExitMeaning]
    texts: tuple[tuple[str, int], ...]
    """(phrase in lower case, error id), the first that fits."""
    tests: Mapping[str, int]
    """Error id by the name, in lower case, of a deployment test of DCGM 3."""


def parse(text: str) -> Table:
    """The table in `text`. Raises ValueError or KeyError when a row is not complete, stands twice or has no known source."""
    data = tomllib.loads(text)
    for row in (*data["severity"], *data["error"], *data["exit"], *data["text"], *data["test"]):
        if row["source"] not in data["source"]:
            raise ValueError(f"the source {row['source']!r} is not in [source]")
    severities = _by("number", data["severity"])
    numbers = {row["name"]: number for number, row in severities.items()}
    return Table(
        severities=MappingProxyType(
            {
                number: DcgmSeverity(
                    number=number,
                    name=str(row["name"]),
                    severity=severity_of(row["severity"]),
                    remedy=remedy_of(row["remedy"]),
                    why=str(row["why"]),
                )
                for number, row in severities.items()
            }
        ),
        errors=MappingProxyType(
            {
                number: DcgmErrorRow(
                    id=number,
                    name=str(row["name"]),
                    dcgm=numbers[row["dcgm"]],
                    category=int(row["category"]),
                    source=str(row["source"]),
                    own=(severity_of(row["severity"]), remedy_of(row["remedy"])) if "severity" in row else None,
                    why=str(row.get("why", "")),
                )
                for number, row in _by("id", data["error"]).items()
            }
        ),
        exits=MappingProxyType(
            {
                number: ExitMeaning(code=number, name=str(row["name"]), means=str(row["means"]), why=str(row["why"]))
                for number, row in _by("code", data["exit"]).items()
            }
        ),
        texts=tuple((str(row["phrase"]), int(row["id"])) for row in data["text"]),
        tests=MappingProxyType({str(row["name"]): int(row["id"]) for row in data["test"]}),
    )


def _by(key: str, rows: list[Mapping[str, Any]]) -> dict[int, Mapping[str, Any]]:
    found: dict[int, Mapping[str, Any]] = {}
    for row in rows:
        if row[key] in found:
            raise ValueError(f"{key} {row[key]} stands twice in the table")
        found[int(row[key])] = row
    return found


def id_of(text: str, test: str = "") -> int | None:
    """The error id that a sentence without numbers stands for, or else the name of a deployment test; None for neither."""
    lower = text.lower()
    for phrase, number in TABLE.texts:
        if phrase in lower:
            return number
    return None if lower else TABLE.tests.get(test.lower())


def xid_in(text: str) -> Judgement | None:
    """What the Xid named in `text` amounts to by its own table; None when it names none that the table has."""
    found = _XID.search(text)
    xid = XIDS.get(int(found["number"])) if found else None
    if xid is None:
        return None
    severity, remedy = xid.judge(text)
    return Judgement(name=f"xid_{xid.number}", severity=severity, remedy=remedy, why=xid.why)


def judge(error_id: int | None, severity: int | None, category: int | None = None) -> Judgement | None:
    """What an error of a FAILED test amounts to; None when neither number says anything.

    Configuration stays configuration whatever the id says. Our own choice for an id comes before DCGM's severity, and the
    severity in the document before the one in our copy of NVIDIA's table, which is of one release.
    """
    row = TABLE.errors.get(error_id) if error_id is not None else None
    if row is None and severity not in TABLE.severities:
        return None
    grade = TABLE.severities.get(row.dcgm if severity not in TABLE.severities and row is not None else severity or 0)
    assert grade is not None
    name = row.name if row is not None else f"error_{error_id}" if error_id is not None else grade.name.lower()
    area = category if category is not None else None if row is None else row.category
    chosen, remedy, why = grade.severity, grade.remedy, grade.why
    if row is not None and row.own is not None:
        (chosen, remedy), why = row.own, row.why
    is_configuration = grade.number == CONFIG or area in TOOL_CATEGORIES
    # An extended diagnostic that failed a test is a verdict on the board, whatever its category is called.
    if area == 7 and row is not None and row.own is not None:
        is_configuration = False
    if is_configuration and chosen > Severity.WARN:
        chosen = Severity.WARN
        remedy = Remedy.RESTART_SERVICE if remedy in (Remedy.REPLACE, Remedy.RESET_GPU, Remedy.REBOOT) else remedy
    return Judgement(
        name=name, severity=chosen, remedy=remedy, why=why, is_configuration=is_configuration, category=area
    )


def exit_meaning(code: int) -> ExitMeaning:
    """What the exit code `code` says; negative codes are signals, as in subprocess. A code that nobody described is unknown."""
    if code < 0:
        return ExitMeaning(code=code, name=f"signal {-code}", means="unknown", why="The command was ended by a signal.")
    return TABLE.exits.get(code) or ExitMeaning(
        code=code, name="", means="unknown", why=f"dcgmi ended with {code}, which is in no table: nothing is proved."
    )


TABLE = parse(files("nodewatch.knowledge").joinpath("dcgm.toml").read_text(encoding="utf-8"))
