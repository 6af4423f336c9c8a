"""One line of the journal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SCHEMA_VERSION = 1
_ENVELOPE = ("v", "n", "at", "kind")


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """`number` counts from 1 without gaps; `at` is when it happened, seconds since the epoch.

    `data` has no key of the envelope (`v`, `n`, `at`, `kind`): such a key would not survive the file.
    """

    number: int
    at: float
    kind: str
    data: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The line as a JSON object."""
        # What was reported must not overwrite the envelope: a line with another number or time could not be read again.
        rest = {key: value for key, value in self.data.items() if key not in _ENVELOPE}
        return {"v": SCHEMA_VERSION, "n": self.number, "at": self.at, "kind": self.kind, **rest}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Record:
        """The inverse of `to_json`. Raises ValueError for another schema version, KeyError for a line that is none."""
        if data["v"] != SCHEMA_VERSION:
            raise ValueError(f"schema version {data['v']!r}, this release reads {SCHEMA_VERSION}")
        rest = {key: value for key, value in data.items() if key not in _ENVELOPE}
        return cls(number=int(data["n"]), at=float(data["at"]), kind=str(data["kind"]), data=rest)
