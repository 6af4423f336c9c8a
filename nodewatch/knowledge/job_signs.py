"""Lines of a job's output that tell why it ended: the table in job_signs.toml, read once at import."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

PROVES = ("hardware", "infrastructure", "program", "limit", "preemption", "follow_on")
EXCEPTION = "exception: "
"""How the last line of a traceback is marked among the told lines: without the traceback it would be any line."""

_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_TRACEBACK = "Traceback (most recent call last)"
_RANK = re.compile(r"^\s*(?:\[(?:rank|default)(?P<a>\d+)\]:?|\[(?P<b>\d+)\]:|(?P<c>\d+):)\s?")
"""How torch (`[rank3]:`), torchrun (`[default3]:`), tee'd logs and `srun -l` (`3:`) say whose line it is."""
_LINE = 4000
"""Characters of a line that are looked at: a progress bar is one line of megabytes."""
_FRAMES = 400
"""A traceback that has not ended after so many lines is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sign:
    """What one kind of line says. `is_certain` is False where bad hardware may be behind it as well."""

    name: str
    proves: str
    is_certain: bool
    what: str
    source: str
    pattern: re.Pattern[str]
    is_exception: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One line that a sign was found in."""

    sign: Sign
    line: str
    rank: int | None = None
    host: str = ""


def parse(text: str) -> tuple[Sign, ...]:
    """The table in TOML, in its order. Raises ValueError, KeyError or re.error when a row is not complete."""
    data = tomllib.loads(text)
    return tuple(_sign(name, row, data["source"]) for name, row in data["signs"].items())


def _sign(name: str, row: Mapping[str, Any], sources: Mapping[str, str]) -> Sign:
    if row["source"] not in sources:
        raise ValueError(f"{name}: the source {row['source']!r} is not in [source]")
    if row["proves"] not in PROVES:
        raise ValueError(f"{name}: proves is one of {', '.join(PROVES)}, not {row['proves']!r}")
    if not isinstance(row["certain"], bool):
        raise ValueError(f"{name}: certain is true or false, not {row['certain']!r}")
    return Sign(
        name=name,
        proves=row["proves"],
        is_certain=row["certain"],
        what=str(row["what"]),
        source=str(row["source"]),
        pattern=re.compile(row["pattern"]),
        is_exception=row.get("exception") is True,
    )


TABLE: tuple[Sign, ...] = parse(files("nodewatch.knowledge").joinpath("job_signs.toml").read_text(encoding="utf-8"))


def told(line: str) -> Told | None:
    """What a line says, None for one that says nothing of an end. Marked exceptions are taken by their last resort too."""
    text = _COLOURS.sub("", line[:_LINE]).strip()
    is_exception = text.startswith(EXCEPTION)
    rank, text = _whose(text.removeprefix(EXCEPTION))
    for sign in TABLE:
        if sign.is_exception and not is_exception:
            continue
        found = sign.pattern.search(text)
        if found is None:
            continue
        named = found.groupdict()
        if named.get("rank"):
            rank = int(named["rank"])
        return Told(sign=sign, line=text, rank=rank, host=named.get("host") or "")
    return None


def told_lines(lines: Iterable[str]) -> Iterator[tuple[Sign, str]]:
    """(sign, line) of each line that tells something, in order; the last line of a traceback is marked as one."""
    open_since: dict[int | None, int] = {}
    for number, raw in enumerate(lines):
        line = _COLOURS.sub("", raw[:_LINE]).rstrip()
        rank, text = _whose(line)
        if _TRACEBACK in text:
            open_since[rank] = number
            continue
        began = open_since.get(rank)
        if began is not None:
            # Frames are indented, or empty between chained ones; what stands at the margin is the exception.
            if not text or text[0].isspace():
                continue
            del open_since[rank]
            if number - began <= _FRAMES:
                line = EXCEPTION + line.strip()
        found = told(line)
        if found is not None:
            yield found.sign, line


def _whose(line: str) -> tuple[int | None, str]:
    rank: int | None = None
    # torchrun's prefix before torch's own.
    for _ in range(3):
        found = _RANK.match(line)
        if found is None:
            break
        rank = next(int(value[:9]) for value in found.groups() if value is not None)
        line = line[found.end() :]
    return rank, line
