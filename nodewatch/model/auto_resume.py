"""The text of `--auto-resume[=TEXT]`: how often, where the checkpoints are, how many nodes are spare.

TEXT is a number, `default` or `off`, with `dir=PATH` and `spares=K` beside it, separated by commas, in any order:
`3,dir=/fsx/run1,spares=1`. slurm_hooks/spank/value.c judges the same at submission; what arrives here may come from
another release of it, or from anyone who writes the mark into a job's Extra field.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

RETRIES_MAX = 99
SPARES_MAX = 999
TEXT_MAX = 900
"""Bytes: the hooks cut values off at 1000, and half a path would be another directory."""
_KEYS = ("dir", "spares")


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoResume:
    """What was asked for."""

    retries: int | None = None
    """How often the job is started again; None where the site's number counts."""
    directory: str = ""
    """Absolute path of the checkpoints; empty where it was not said."""
    spares: int = 0
    """Nodes of the allocation that wait for another to fail."""
    is_off: bool = False
    """The job is not to be started again, whatever the site's default is."""


def parse(text: str) -> AutoResume:
    """What `text` asks for. Raises ValueError with one sentence."""
    parts = _parts(text)
    number = parts.get("retries")
    return AutoResume(
        retries=None if number is None else int(number),
        directory=parts.get("dir", ""),
        spares=int(parts.get("spares", "0")),
        is_off="off" in parts,
    )


def merged(text: str, site: str) -> str:
    """`text` with what it does not say taken from `site`, as a text of the same kind; `off` and the user's words win.

    Raises ValueError as `parse` does.
    """
    own, defaults = _parts(text), _parts(site)
    if "off" in own:
        return "off"
    return _joined({**{key: value for key, value in defaults.items() if key != "off"}, **own})


def _joined(parts: Mapping[str, str]) -> str:
    words = [parts.get("retries", "default")]
    words += [f"{key}={parts[key]}" for key in _KEYS if key in parts]
    return ",".join(words)


def _parts(text: str) -> dict[str, str]:
    """What was said: `retries`, `dir` and `spares` with their values, `off`; nothing for `default`."""
    if len(text.encode("utf-8", "replace")) > TEXT_MAX:
        raise ValueError(f"--auto-resume is followed by more than {TEXT_MAX} bytes: write a shorter path")
    found: dict[str, str] = {}
    for word in text.split(","):
        if not word and "," in text:
            raise ValueError(f"{text!r} has a comma with nothing beside it")
        key, equals, value = word.partition("=")
        name = key if equals else "default" if word in ("default", "off") else "retries"
        if equals and key not in _KEYS:
            raise ValueError(f"{key!r} in {text!r} is unknown: known are dir=/PATH and spares=K")
        if name in found:
            raise ValueError(f"{text!r} says {'N' if name in ('retries', 'default') else name} twice: say it once")
        found[name] = _judged(text, word, name, value if equals else word)
    if "default" in found and "retries" in found:
        raise ValueError(f"{text!r} has a number beside {found['default']!r}: write one of the two")
    plain = found.pop("default", "")
    if plain == "off":
        if found:
            raise ValueError(f"{text!r} says more than off: write off alone")
        return {"off": "off"}
    return found


def _judged(text: str, word: str, name: str, value: str) -> str:
    if name == "default":
        return word
    if name == "dir":
        # What would break a line of the job's environment file, or what a shell prints, is no path of anyone's.
        if not value.startswith("/") or any(char < " " or char == "\x7f" for char in value):
            raise ValueError(f"{word!r} in {text!r} is no absolute path: write dir=/PATH")
        return value
    if name == "spares":
        return _number(value, SPARES_MAX, f"{word!r} in {text!r} is no number from 0 to {SPARES_MAX}")
    known = f"write N (0 to {RETRIES_MAX}), default or off, and dir=/PATH or spares=K after a comma"
    return _number(value, RETRIES_MAX, f"{word!r} in {text!r} is not understood: {known}")


def _number(value: str, most: int, otherwise: str) -> str:
    # "²" is a digit to str.isdigit and no number to int.
    if not re.fullmatch(r"0*[0-9]{1,4}", value) or int(value) > most:
        raise ValueError(otherwise)
    return str(int(value))
