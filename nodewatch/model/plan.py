"""What one tick of the planner decided."""

from __future__ import annotations

from dataclasses import dataclass

from nodewatch.model.actions import Action
from nodewatch.model.ledger import Case, Cause


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Something that was not done, and why, in words that an operator can act on. `subject` is a node or `job N`."""

    subject: str
    why: str
    case_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """Why one run of a marked job ended."""

    job_id: int
    restart_count: int
    cause: Cause
    text: str
    restarts: bool
    """Whether the job is to be started again."""
    node: str = ""
    """The node that failed under it; empty when none is known to have."""
    evidence: tuple[str, ...] = ()
    """What it rests on: sentences, and lines of the job's own output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Cases that changed, jobs that were judged, what to do now in this order, and what is held back."""

    cases: tuple[Case, ...] = ()
    judgements: tuple[Judgement, ...] = ()
    actions: tuple[Action, ...] = ()
    held: tuple[Held, ...] = ()
