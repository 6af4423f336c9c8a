"""Slurm's hostlist expressions: `n[1-3,7],login` and back."""

from __future__ import annotations

import re
from collections.abc import Iterable

_MOST_NAMES = 100_000
_MOST_BRACKETS = 8
"""Slurm itself allows five dimensions at most."""
_PART = re.compile(r"\[([^\]]*)\]")


def expand(text: str) -> list[str]:
    """The names that `text` stands for, in its order; an empty text stands for none.

    Raises ValueError with one sentence for an expression that is none, or that stands for more than 100,000 names.
    """
    names: list[str] = []
    for item in _items(text):
        if item.count("[") > _MOST_BRACKETS:
            raise ValueError(f"{_short(text)} is no hostlist: more than {_MOST_BRACKETS} brackets in one name")
        names += _expand_one(item, text)
        if len(names) > _MOST_NAMES:
            raise ValueError(f"{_short(text)} stands for more than {_MOST_NAMES} names")
    return names


def _items(text: str) -> list[str]:
    """The parts between commas outside of brackets."""
    # By pieces and not by a look-ahead, which would read the whole rest again at each comma.
    items: list[list[str]] = []
    is_open = False
    for piece in text.split(","):
        if is_open:
            items[-1].append(piece)
        else:
            items.append([piece])
        if "[" in piece or "]" in piece:
            is_open = piece.rfind("[") > piece.rfind("]")
    joined = [",".join(pieces).strip() for pieces in items]
    return [item for item in joined if item]


def _short(text: str) -> str:
    return repr(text if len(text) <= 100 else f"{text[:100]}...")


def _is_number(text: str) -> bool:
    # `isdigit` alone is true for a superscript two, which `int` refuses.
    return text.isascii() and text.isdigit() and len(text) <= 18


def _expand_one(item: str, whole: str) -> list[str]:
    match = _PART.search(item)
    if match is None:
        if "[" in item or "]" in item:
            raise ValueError(f"{_short(whole)} is no hostlist: a bracket is not closed")
        return [item]
    names: list[str] = []
    for piece in match.group(1).split(","):
        low, dash, high = piece.strip().partition("-")
        if not _is_number(low) or (dash and not _is_number(high)):
            raise ValueError(f"{_short(whole)} is no hostlist: {_short(piece)} is no number or range")
        first, last = int(low), int(high) if dash else int(low)
        if last < first or last - first >= _MOST_NAMES:
            raise ValueError(f"{_short(whole)} is no hostlist: the range {_short(piece)} is empty or too long")
        for number in range(first, last + 1):
            names += _expand_one(f"{item[: match.start()]}{number:0{len(low)}d}{item[match.end() :]}", whole)
            if len(names) > _MOST_NAMES:
                raise ValueError(f"{_short(whole)} stands for more than {_MOST_NAMES} names")
    return names


def fold(names: Iterable[str]) -> str:
    """The names as one expression, sorted and without repeats; `expand` is its inverse up to order."""
    groups: dict[tuple[str, int], list[int]] = {}
    plain: list[str] = []
    for name in sorted(set(names)):
        match = re.fullmatch(r"(.*?)([0-9]{1,18})", name)
        if match is None:
            plain.append(name)
        else:
            groups.setdefault((match.group(1), len(match.group(2))), []).append(int(match.group(2)))
    parts = list(plain)
    for (prefix, width), numbers in groups.items():
        ranges = _ranges(sorted(numbers), width)
        parts.append(f"{prefix}{ranges[0]}" if len(numbers) == 1 else f"{prefix}[{','.join(ranges)}]")
    return ",".join(sorted(parts))


def _ranges(numbers: list[int], width: int) -> list[str]:
    ranges: list[str] = []
    start = previous = numbers[0]
    for number in [*numbers[1:], None]:
        if number is not None and number == previous + 1:
            previous = number
            continue
        ranges.append(f"{start:0{width}d}" if start == previous else f"{start:0{width}d}-{previous:0{width}d}")
        if number is not None:
            start = previous = number
    return ranges
