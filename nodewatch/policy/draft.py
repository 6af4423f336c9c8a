"""A ledger under construction: many records are folded into it without copying the whole memory for each of them.

Its tables are copied when they are first written to and belong to the draft from then on, until `ledger` hands them out.
What has to be forgotten is found by heaps, that are built only once a table is full.
"""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from nodewatch.model.ledger import ActionRecord, ActionState, Case, Ledger, MarkedJob

Time = Callable[[Any], float | None]
"""When an entry was last of use; None for one that must not be forgotten."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much is remembered. Beyond it the oldest entry that may be forgotten goes for each new one."""

    closed_cases: int = 2000
    jobs: int = 5000
    actions: int = 20000
    check_runs: int = 500


LIMITS = Limits()
_ANSWERS = ("validations", "resets")


class _Oldest:
    """The entries of one table that may be forgotten, by time and, where that is equal, by their place in the table."""

    def __init__(self, table: Mapping[Any, Any], time_of: Time) -> None:
        self._time_of = time_of
        self._place = {key: place for place, key in enumerate(table)}
        self._next = len(self._place)
        self._at: dict[Any, float] = {}
        self._heap: list[tuple[float, int, Any]] = []
        for key, value in table.items():
            at = time_of(value)
            if at is not None:
                self._at[key] = at
                self._heap.append((at, self._place[key], key))
        heapq.heapify(self._heap)

    def __len__(self) -> int:
        return len(self._at)

    def put(self, key: Any, value: Any) -> None:
        if key not in self._place:
            self._place[key] = self._next
            self._next += 1
        at = self._time_of(value)
        if at is None:
            self._at.pop(key, None)
        elif self._at.get(key) != at:
            self._at[key] = at
            heapq.heappush(self._heap, (at, self._place[key], key))
            if len(self._heap) > 4 * len(self._place) + 1000:
                # Entries that were overtaken would fill the memory of a controller that runs for a year.
                self._heap = [(at, self._place[key], key) for key, at in self._at.items()]
                heapq.heapify(self._heap)

    def drop(self, key: Any) -> None:
        self._place.pop(key, None)
        self._at.pop(key, None)

    def oldest(self) -> Any:
        """The key of the one to forget. There must be one."""
        while True:
            at, place, key = self._heap[0]
            if self._place.get(key) == place and self._at.get(key) == at:
                return key
            heapq.heappop(self._heap)


class Draft:
    """Starts as `ledger`, which it never changes."""

    def __init__(self, ledger: Ledger, limits: Limits = LIMITS) -> None:
        self.limits = limits
        self._base = ledger
        self._own: dict[str, dict[Any, Any]] = {}
        self._values: dict[str, Any] = {}
        self._oldest: dict[str, _Oldest] = {}
        self._actions_of: dict[str, dict[str, None]] | None = None

    def __getattr__(self, name: str) -> Any:
        """A field of the ledger as it is now, for reading."""
        if name in self._own:
            return self._own[name]
        return self._values[name] if name in self._values else getattr(self._base, name)

    def table(self, name: str) -> dict[Any, Any]:
        """The table `name`, to be written to."""
        if name not in self._own:
            self._own[name] = dict(self._values.pop(name, getattr(self._base, name)))
        return self._own[name]

    def set(self, **values: Any) -> None:
        """Give fields that are no tables of the limits new values."""
        for name, value in values.items():
            self._own.pop(name, None)
            self._values[name] = value

    def ledger(self) -> Ledger:
        """The ledger as it is now. Later changes of the draft do not show in it."""
        if self._own or self._values:
            changes: dict[str, Any] = {**self._own, **self._values}
            self._base = dataclasses.replace(self._base, **changes)
            self._own, self._values = {}, {}
        return self._base

    def replaced_by(self, ledger: Ledger) -> None:
        """Go on from `ledger`, which was made from what `ledger()` gave."""
        before = self.ledger()
        for name in ("cases", "jobs", "actions"):
            if getattr(ledger, name) is not getattr(before, name):
                self._oldest.pop(name, None)
                if name == "actions":
                    self._actions_of = None
        self._base = ledger

    def put_case(self, case: Case) -> None:
        """Remember `case`; once it is closed nothing asks for its actions and answers again."""
        cases = self.table("cases")
        cases[case.case_id] = case
        self._forget("cases", case.case_id, case, self.limits.closed_cases, lambda c: None if c.is_open else c.step_at)
        if case.is_open:
            return
        prefix = f"{case.case_id}:"
        gone = [
            key for key in self._actions_by_case().get(case.case_id.partition(":")[0], ()) if key.startswith(prefix)
        ]
        for key in gone:
            self._drop_action(key)
        for name in _ANSWERS:
            old = [key for key in getattr(self, name) if key.startswith(prefix)]
            for key in old:
                del self.table(name)[key]

    def put_job(self, job: MarkedJob) -> None:
        """Remember `job`."""
        self.table("jobs")[job.job_id] = job
        self._forget("jobs", job.job_id, job, self.limits.jobs, lambda known: known.started_at)

    def put_action(self, record: ActionRecord) -> None:
        """Remember `record`. What was begun and has no outcome is not forgotten for it."""
        key = record.action.key
        self.table("actions")[key] = record
        if self._actions_of is not None:
            self._actions_of.setdefault(key.partition(":")[0], {})[key] = None
        if len(self._own["actions"]) > self.limits.actions or "actions" in self._oldest:
            self._forget(
                "actions",
                key,
                record,
                self.limits.actions,
                lambda known: None if known.state is ActionState.INTENDED else known.at,
            )

    def _forget(self, name: str, key: Any, value: Any, limit: int, time_of: Time) -> None:
        table = self._own[name]
        index = self._oldest.get(name)
        if index is not None:
            index.put(key, value)
        elif len(table) > limit:
            index = self._oldest[name] = _Oldest(table, time_of)
        # Of cases only the closed ones are counted; of the others all are.
        count = 0 if index is None else len(index) if name == "cases" else len(table)
        if index is not None and count > limit and len(index):
            oldest = index.oldest()
            if name == "actions":
                self._drop_action(oldest)
            else:
                del table[oldest]
                index.drop(oldest)

    def _actions_by_case(self) -> dict[str, dict[str, None]]:
        if self._actions_of is None:
            self._actions_of = {}
            for key in self.actions:
                self._actions_of.setdefault(key.partition(":")[0], {})[key] = None
        return self._actions_of

    def _drop_action(self, key: str) -> None:
        del self.table("actions")[key]
        if "actions" in self._oldest:
            self._oldest["actions"].drop(key)
        if self._actions_of is not None:
            first = key.partition(":")[0]
            keys = self._actions_of.get(first, {})
            keys.pop(key, None)
            if not keys:
                self._actions_of.pop(first, None)
