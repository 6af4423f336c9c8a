"""Other rules over a recorded journal: at each moment at which the planner looked, what it did and what it would have done.

The past stays as it was: what follows from another decision is not played on, so that each difference stands by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from nodewatch.model import actions as act
from nodewatch.model.ledger import Case, Ledger
from nodewatch.model.plan import Plan
from nodewatch.model.records import Record
from nodewatch.policy.draft import Draft
from nodewatch.policy.fold import case_from_json, fold_into
from nodewatch.policy.picture import Picture, changed, rules_from_json, snapshot_of
from nodewatch.policy.plan import plan
from nodewatch.policy.rules import Rules

Decisions = Mapping[tuple[str, ...], str]
"""Each decision by what makes it the same one, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """At `at`: what was decided and would not be, and what would be and was not."""

    at: float
    number: int
    """The record at which the planner had looked."""
    only_then: tuple[str, ...]
    only_now: tuple[str, ...]


@dataclass(slots=True, kw_only=True)
class Replay:
    """Goes through a journal once; the counts are whole when `differences` has ended."""

    ledger: Ledger
    """What the records before the first one amount to."""
    rules: Rules | None = None
    """The other rules; None for those that were in force, which should make no difference."""
    looks: int = 0
    """How often the planner had looked."""
    decisions: int = 0
    """How many decisions were recorded then."""
    skipped: int = 0
    """Looks that could not be judged: a full picture, or the rules in force, stand in no record before them."""

    def differences(self, records: Iterable[Record]) -> Iterator[Difference]:
        """Each difference once, when it first shows, and again after it had gone.

        Raises KeyError, ValueError or TypeError for a record that cannot be understood.
        """
        draft = Draft(self.ledger)
        waiting: list[Record] = []
        picture: Picture | None = None
        in_force: Rules | None = None
        look: _Look | None = None
        standing: frozenset[tuple[str, ...]] = frozenset()
        for record in records:
            if record.kind in ("started", "seen"):
                if look is not None:
                    found, standing = self._compared(look, standing)
                    yield from found
                look = None
            if record.kind == "started":
                picture = None
                in_force = rules_from_json(record.data["rules"]) if "rules" in record.data else None
            if record.kind == "seen":
                # Reports that came in while it was planning are not what it planned by.
                after = int(record.data["after"])
                late = [each for each in waiting if each.number > after]
                for each in waiting[: len(waiting) - len(late)]:
                    fold_into(draft, each)
                waiting = late
                picture = changed(picture, record.data)
                rules = self.rules or in_force
                if picture is None or rules is None:
                    self.skipped += 1
                else:
                    self.looks += 1
                    now = plan(snapshot_of(picture, record.at), draft.ledger(), rules, record.at)
                    look = _Look(at=record.at, number=record.number, now=_decided(now))
            elif look is not None:
                look.take(record)
            waiting.append(record)
        if look is not None:
            yield from self._compared(look, standing)[0]

    def _compared(
        self, look: _Look, standing: frozenset[tuple[str, ...]]
    ) -> tuple[list[Difference], frozenset[tuple[str, ...]]]:
        self.decisions += len(look.then)
        then = {("then", *key): text for key, text in look.then.items() if key not in look.now}
        now = {("now", *key): text for key, text in look.now.items() if key not in look.then}
        fresh_then = tuple(text for key, text in then.items() if key not in standing)
        fresh_now = tuple(text for key, text in now.items() if key not in standing)
        found = []
        if fresh_then or fresh_now:
            found = [Difference(at=look.at, number=look.number, only_then=fresh_then, only_now=fresh_now)]
        return found, frozenset({*then, *now})


@dataclass(slots=True, kw_only=True)
class _Look:
    at: float
    number: int
    now: Decisions
    then: dict[tuple[str, ...], str] = field(default_factory=dict)

    def take(self, record: Record) -> None:
        """A decision that was recorded after the look."""
        data: Mapping[str, Any] = record.data
        if record.kind == "case":
            key, text = _of_case(case_from_json(data["case"]))
        elif record.kind == "judged":
            key, text = _of_judgement(int(data["job_id"]), str(data["cause"]), bool(data["restarts"]))
        elif record.kind == "intended":
            key, text = _of_action(act.from_json(data["action"]))
        else:
            return
        self.then[key] = text


def _decided(plan: Plan) -> Decisions:
    found = [_of_case(case) for case in plan.cases]
    found += [_of_judgement(each.job_id, each.cause.value, each.restarts) for each in plan.judgements]
    found += [_of_action(action) for action in plan.actions]
    return dict(found)


def _of_case(case: Case) -> tuple[tuple[str, ...], str]:
    step = case.step.value.replace("_", " ")
    key = ("case", case.node, case.family, case.step.value, case.rung.word)
    return key, f"{case.node}: {case.fault} {step}, {case.rung.word} ({case.why})"


def _of_judgement(job_id: int, cause: str, restarts: bool) -> tuple[tuple[str, ...], str]:
    verdict = "started again" if restarts else "not started again"
    return ("judged", str(job_id), cause, verdict), f"job {job_id}: {cause}, {verdict}"


def _of_action(action: act.Action) -> tuple[tuple[str, ...], str]:
    subject = getattr(action, "job_id", None) or getattr(action, "node", "")
    return ("action", act.word_of(action), str(subject)), act.describe(action)
