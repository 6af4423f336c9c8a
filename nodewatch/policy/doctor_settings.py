"""Slurm's configuration as its commands print it or as its file says it, read by what a value means."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_NOT_SET = ("", "(null)", "none", "n/a")
_ENDLESS = ("infinite", "unlimited", "-1")
_DURATION = re.compile(r"(\d{1,9})(?:\s*(?:sec|min)?)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """One sentence about one parameter: what is so, what that costs, what to write."""

    parameter: str
    sentence: str
    is_needed: bool = True
    """nodewatch does not work as promised until it is changed; otherwise a matter of taste or of the site's habits."""


class SlurmSettings:
    """Slurm's parameters by name, in any spelling of upper and lower case; a parameter that is not set has no value."""

    def __init__(self, config: Mapping[str, str], *, release: str = "") -> None:
        """`release` is used where `config` has no SLURM_VERSION."""
        self._values = {key.lower(): value.strip() for key, value in config.items()}
        self._release = release

    def text(self, name: str) -> str:
        """The value, empty when it is not set."""
        value = self._values.get(name.lower(), "")
        return "" if value.lower() in _NOT_SET else value

    def every(self, name: str) -> list[str]:
        """All values of a parameter that may be given more than once, which newer releases print as name[0], name[1]."""
        pattern = re.compile(rf"{re.escape(name.lower())}(\[\d+\])?")
        return [value for key, value in self._values.items() if pattern.fullmatch(key)]

    def words(self, name: str) -> frozenset[str]:
        """The words of a list with commas, in lower case, each up to its equals sign."""
        return frozenset(word.strip().partition("=")[0].lower() for word in self.text(name).split(",") if word.strip())

    def number(self, name: str, default: float) -> float:
        """A count or a duration in its own unit; infinite when Slurm says so; `default` when not set or no number."""
        text = self.text(name)
        if text.lower() in _ENDLESS:
            return float("inf")
        match = _DURATION.fullmatch(text)
        return float(match[1]) if match else default

    def flag(self, name: str, *, default: bool) -> bool:
        """A yes or no, in any of Slurm's spellings."""
        text = self.text(name).lower()
        return default if not text else text not in ("0", "no", "false", "down")

    @property
    def release(self) -> tuple[int, int] | None:
        """Such as (24, 11); None when it is not told."""
        match = re.match(r"(\d{1,3})\.(\d{1,2})", self.text("SLURM_VERSION") or self._release)
        return None if match is None else (int(match[1]), int(match[2]))
