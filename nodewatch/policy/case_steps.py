"""What a step of a repair may look at, what it comes to, and how a case goes on: the next step, another try, a rung up."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from nodewatch.model import actions as act
from nodewatch.model.cluster import AgentView, Snapshot
from nodewatch.model.ledger import ActionState, Case, Ledger, Rung, Step
from nodewatch.policy import guards
from nodewatch.policy.attempts import blocked, due
from nodewatch.policy.ladder import rung_after
from nodewatch.policy.rules import Rules


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What a step may look at."""

    snapshot: Snapshot
    ledger: Ledger
    rules: Rules
    now: float
    spares: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By group, the nodes that are held as spares."""
    spares_taken: Collection[str] = ()
    """Spares that other cases were given in this same tick."""
    storm: str | None = None
    refused: Mapping[str, str] = field(default_factory=dict)
    """By group, why EC2 is not asked for another machine now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOutcome:
    """The case after the step, actions in order, and why nothing more was done."""

    case: Case
    actions: tuple[act.Action, ...] = ()
    held: tuple[str, ...] = ()


def key_of(case: Case, *parts: object) -> str:
    """The key of an action of this case: each rung has its own, so that a higher one can drain and return anew."""
    return ":".join([case.case_id, case.rung.word, *map(str, parts)])


def owned_reason(case: Case) -> str:
    """The drain reason on a node of this case: ours, with the case id and the cause."""
    return f"nodewatch: {case.case_id} {case.fault} on {case.subject}"


def moved(case: Case, step: Step, scene: Scene, why: str, **changes: object) -> StepOutcome:
    """The case goes on to another step."""
    changed = dataclasses.replace(case, step=step, step_at=scene.now, why=why, **changes)  # type: ignore[arg-type]
    return StepOutcome(case=changed)


def begin(case: Case, action: act.Action, scene: Scene) -> StepOutcome:
    """The action, when it is due; otherwise why not. A destructive one waits until the node is empty; none is begun on a
    node that somebody took over meanwhile."""
    taken_over = guards.foreign(case, scene.snapshot)
    record = scene.ledger.actions.get(action.key)
    # One that was intended and has no outcome may have happened: it is settled whoever has the node now.
    is_unsettled = record is not None and record.state is ActionState.INTENDED
    if taken_over is not None and not is_unsettled:
        return StepOutcome(case=case, held=(taken_over,))
    if isinstance(action, act.DESTRUCTIVE) and case.family != "node" and scene.snapshot.is_busy(case.node):
        return StepOutcome(case=case, held=(f"{case.node} is busy again: {act.word_of(action)} waits",))
    if due(action, scene.ledger, scene.rules, scene.now):
        return StepOutcome(case=case, actions=(action,))
    why = blocked(action.key, scene.ledger, scene.rules, scene.now)
    return StepOutcome(case=case, held=(why,) if why else ())


def view_of(case: Case, scene: Scene) -> AgentView | None:
    """The agent's word about the machine that the case is about now: the new one once it exists."""
    view = scene.snapshot.agents.get(case.node)
    expected = case.new_instance or case.old_instance
    if view is None or (expected and view.instance_id and view.instance_id != expected):
        return None
    return view


def next_rung(case: Case, scene: Scene, why: str) -> StepOutcome:
    """What was tried does not help: one rung up, from the beginning."""
    rung = rung_after(case.rung)
    node = scene.snapshot.nodes.get(case.node)
    changed = dataclasses.replace(
        case,
        rung=rung,
        old_slurmd=node.slurmd_started_at if node is not None else case.old_slurmd,
        step=Step.DRAINING,
        step_at=scene.now,
        why=f"{why}: up to {rung.word}",
        attempt=1,
        tried=(*case.tried, case.rung),
        old_instance=case.new_instance or case.old_instance,
        new_instance="",
        new_address="",
    )
    return StepOutcome(case=changed)


def new_attempt(case: Case, scene: Scene, why: str) -> StepOutcome:
    """Once more on the same rung with another machine, or up, when the tries are used up.

    The machine that failed becomes the old one, so that it is ended once its successor exists.
    """
    if case.rung is not Rung.REPLACE or case.attempt >= scene.rules.attempts:
        return next_rung(case, scene, why)
    changed = dataclasses.replace(
        case,
        step=Step.LAUNCHING,
        step_at=scene.now,
        why=f"{why}: try {case.attempt + 1} of {scene.rules.attempts}",
        attempt=case.attempt + 1,
        old_instance=case.new_instance or case.old_instance,
        new_instance="",
        new_address="",
    )
    return StepOutcome(case=changed)
