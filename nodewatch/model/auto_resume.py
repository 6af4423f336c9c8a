"""The text of `--auto-resume[=TEXT]`: how often, where the checkpoints are, how many nodes are spare.

TEXT is a number, `default` or `off`, with `dir=PATH` and `spares=K` beside it, separated by commas, in any order:
`3,dir=/fsx/run1,spares=1`. slurm_hooks/spank/value.c judges the same at submission; what arrives here may come from
another release of it, or from anyone who writes the mark into a job's Extra field.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

EXTRA_MARK = "nodewatch:auto-resume="
"""Before the text in a job's Extra field, where a step was submitted with the flag in a job that was not."""
RETRIES_MAX = 99
SPARES_MAX = 999
TEXT_MAX = 900
"""Bytes: the hooks cut values off at 1000, and half a path would be another directory."""
_KEYS = ("dir", "spares")
_PLACE = re.compile(r"\{([^{}]*)\}")
_PLACES = ("user", "job_name")
_NOT_IN_A_NAME = re.compile(r"[/,\x00-\x1f\x7f]")


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


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteDefault:
    """What `default` stands for in a partition or an account: one `[[auto_resume]]` table of controller.toml."""

    partition: str = ""
    """Jobs of this partition; empty: of any."""
    account: str = ""
    """Jobs of this account; empty: of any."""
    value: str = "default"
    """What the user does not say himself, such as `3,dir=/fsx/{user}/{job_name}`."""
    always: bool = False
    """Jobs that say nothing at all are marked too; `--auto-resume=off` takes a job out."""

    def __post_init__(self) -> None:
        if parse(self.value).is_off:
            raise ValueError("value is 'off': leave the table out, a job without the flag is not resumed")
        for name in _PLACE.findall(self.value):
            if name not in _PLACES:
                raise ValueError(f"{{{name}}} in value is unknown: known are {{user}} and {{job_name}}")

    def is_for(self, partition: str, account: str) -> bool:
        """Whether a job of `partition` and `account` is meant."""
        return self.partition in ("", partition) and self.account in ("", account)

    def to_json(self) -> dict[str, Any]:
        """As the controller tells it to agents."""
        return {
            "partition": self.partition,
            "account": self.account,
            "value": self.value,
            "always": self.always,
        }


def site_defaults_from_json(told: Any) -> tuple[SiteDefault, ...]:
    """Those that a controller told. Raises KeyError, ValueError or TypeError for another shape."""
    return tuple(
        SiteDefault(
            partition=str(item["partition"]),
            account=str(item["account"]),
            value=str(item["value"]),
            always=bool(item["always"]),
        )
        for item in told
    )


def effective(text: str | None, defaults: Iterable[SiteDefault], *, partition: str, account: str) -> str | None:
    """What counts for a job that said `text` (None: it said nothing): its own words, and behind them the first default
    that is for it. None where the job is not marked.

    A text that is not understood is given back as it is: it is told about where it is read.
    """
    mine = next((each for each in defaults if each.is_for(partition, account)), None)
    if mine is None or (text is None and not mine.always):
        return text
    try:
        return merged("default" if text is None else text, mine.value)
    except ValueError:
        return text


def resolved(text: str, *, user: str, job_name: str) -> str:
    """`text` with the user's and the job's name put in; a name that is not known (empty) leaves its place as it is."""
    for place, name in (("{user}", user), ("{job_name}", job_name)):
        if name:
            # A name is one part of a path, whatever it holds; a comma would begin another word.
            text = text.replace(place, "_" if name in (".", "..") else _NOT_IN_A_NAME.sub("_", name))
    return text


def mark_of(
    text: str | None, defaults: Iterable[SiteDefault], *, partition: str, account: str, user: str, job_name: str
) -> str | None:
    """What counts for a job that said `text`: `effective`, then `resolved`. None where it is not marked."""
    counts = effective(text, defaults, partition=partition, account=account)
    return None if counts is None else resolved(counts, user=user, job_name=job_name)


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
