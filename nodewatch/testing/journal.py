"""A journal in memory that goes through the same JSON as the file, so that what cannot be written cannot be remembered."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from nodewatch.errors import JournalError
from nodewatch.model.ledger import Ledger
from nodewatch.model.records import Record


class MemoryJournal:
    """Records in a list; `full` makes every append fail as a full disk does."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.full = False

    def append(self, at: float, kind: str, data: Mapping[str, Any]) -> Record:
        """Keep one record. Raises JournalError while `full`."""
        if self.full:
            raise JournalError("the journal cannot be written: no space left on device")
        record = Record(number=len(self.records) + 1, at=at, kind=kind, data=data)
        kept = Record.from_json(json.loads(json.dumps(record.to_json())))
        self.records.append(kept)
        return kept

    def keep(self, ledger: Ledger) -> None:
        """Nothing: a list needs no snapshot."""
