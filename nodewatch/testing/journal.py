"""A journal in memory that goes through the same JSON as the file, so that what cannot be written cannot be remembered."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from nodewatch.errors import JournalError
from nodewatch.model.ledger import Ledger
from nodewatch.model.records import Record


class Killed(BaseException):
    """The controller's process ends here: nothing in it may catch this."""


class MemoryJournal:
    """Records in a list; `full` makes every append fail as a full disk does."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.full = False
        self.kills_at = 0
        """At the first record from this number on the controller is killed, once; 0: never."""
        self.kills_after = False
        """Just after that record is on disk, not just before."""
        self.kills_after_actions = False
        """The controller is killed after the outcome of every single action."""

    def append(self, at: float, kind: str, data: Mapping[str, Any]) -> Record:
        """Keep one record. Raises JournalError while `full`, and Killed where the controller is to end."""
        if self.full:
            raise JournalError("the journal cannot be written: no space left on device")
        is_due = 0 < self.kills_at <= len(self.records) + 1
        if is_due:
            self.kills_at = 0
            if not self.kills_after:
                raise Killed
        record = Record(number=len(self.records) + 1, at=at, kind=kind, data=data)
        kept = Record.from_json(json.loads(json.dumps(record.to_json())))
        self.records.append(kept)
        if is_due or (self.kills_after_actions and kind in ("done", "failed")):
            raise Killed
        return kept

    def keep(self, ledger: Ledger) -> None:
        """Nothing: a list needs no snapshot."""
