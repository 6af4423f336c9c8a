"""An operator's verbs: what they would do, tried on a copy of the ledger, and the record that makes them real."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nodewatch.controller.engine import Engine
from nodewatch.model import actions as act
from nodewatch.model.ledger import Ledger
from nodewatch.model.plan import Plan
from nodewatch.policy import wishes
from nodewatch.policy.parting import note_of
from nodewatch.policy.plan import plan

_MOST_TEXT = 500


def repair_or_service(
    engine: Engine, verb: str, nodes: Sequence[str], question: Mapping[str, Any], *, by: str, now: float
) -> dict[str, Any]:
    """`replace`, `reboot`, `drain` or `return` of `nodes`; with `dry_run` nothing is written.

    All or nothing: a node for which it makes no sense refuses the whole, so that a hostlist with a slip does no half.
    """
    if verb not in wishes.VERBS:
        return {"error": f"the verb {verb!r} is not known: use one of {', '.join(wishes.VERBS)}"}
    force, reason = bool(question.get("force")), " ".join(str(question.get("reason") or "").split())[:_MOST_TEXT]
    snapshot, ledger, rules = engine.snapshot, engine.ledger, engine.rules
    if snapshot.slurm_error is not None:
        return {"error": f"Slurm could not be read ({snapshot.slurm_error}): nothing is done on half a picture"}
    refusals = {
        node: why
        for node in nodes
        if (why := wishes.refusal(verb, node, snapshot, ledger, rules, now, force=force, reason=reason))
    }
    if refusals:
        return {"error": f"nothing is done: {'; '.join(refusals.values())}", "refused": refusals}
    data = {"verb": verb, "nodes": list(nodes), "by": by, "reason": reason, "force": force}
    would = _outline(plan(snapshot, wishes.tried_on_copy(ledger, "operator_asked", data, now), rules, now), nodes)
    answer = {
        "verb": verb,
        "nodes": list(nodes),
        "force": force,
        "jobs": wishes.affected_jobs(nodes, snapshot, ledger),
        "would": would,
        "done": False,
    }
    if question.get("dry_run"):
        return answer
    engine.note("operator_asked", data)
    return {**answer, "done": True}


def pause(engine: Engine, question: Mapping[str, Any], *, by: str, now: float) -> dict[str, Any]:
    """`pause` or `resume` of scopes (`cluster`, `partition:NAME`, `node:NAME`), for `seconds` or until resumed."""
    scopes = [str(scope) for scope in question["scopes"]] or ["cluster"]
    unknown = _unknown_scopes(scopes, engine)
    if unknown:
        return {"error": f"{', '.join(unknown)}: no such partition or node is known to Slurm: `sinfo` lists them"}
    if question["ask"] == "resume":
        known = [scope for scope in scopes if scope in engine.ledger.pauses]
        if not known:
            return {"error": f"{', '.join(scopes)} is not paused: `nodewatch status` shows what is"}
        engine.note("resumed", {"scopes": known, "by": by})
        return {"resumed": known, "paused": _pauses(engine.ledger, now)}
    seconds = question.get("seconds")
    if seconds is not None and not (isinstance(seconds, int | float) and 0 < seconds < 1e8):
        return {"error": f"{seconds!r} is no time to pause for: give seconds above 0"}
    reason = " ".join(str(question.get("reason") or "").split())[:_MOST_TEXT]
    until = None if seconds is None else now + seconds
    engine.note("paused", {"scopes": scopes, "by": by, "reason": reason, "until": until})
    return {"paused": _pauses(engine.ledger, now)}


def show_plan(engine: Engine, *, as_if_acting: bool, now: float) -> dict[str, Any]:
    """What the planner would do at `now`, and what it holds and why; `as_if_acting` tries mode `act` in observe mode."""
    rules = dataclasses.replace(engine.rules, mode="act") if as_if_acting else engine.rules
    decided = plan(engine.snapshot, engine.ledger, rules, now)
    return {"mode": engine.rules.mode, "as_if_acting": as_if_acting, **_outline(decided, None)}


def _outline(decided: Plan, nodes: Iterable[str] | None) -> dict[str, Any]:
    """The plan in words; with `nodes` only what is about them."""
    meant = None if nodes is None else set(nodes)

    def is_meant(name: object) -> bool:
        return meant is None or name in meant

    return {
        "actions": [
            {"action": act.word_of(action), "text": act.describe(action), "key": action.key}
            for action in decided.actions
            if is_meant(getattr(action, "node", None))
        ],
        "cases": [
            {
                "case": case.case_id,
                "node": case.node,
                "rung": case.rung.word,
                "step": case.step.value,
                "why": case.why,
                "note": note_of(case),
            }
            for case in decided.cases
            if is_meant(case.node)
        ],
        "held": [{"subject": item.subject, "why": item.why} for item in decided.held if is_meant(item.subject)],
    }


def _unknown_scopes(scopes: Sequence[str], engine: Engine) -> list[str]:
    nodes = engine.snapshot.nodes
    partitions = {name for node in nodes.values() for name in node.partitions}
    known = {"cluster", *(f"partition:{name}" for name in partitions), *(f"node:{name}" for name in nodes)}
    # What is paused may be resumed even when Slurm knows it no longer.
    return [scope for scope in scopes if scope not in known and scope not in engine.ledger.pauses]


def _pauses(ledger: Ledger, now: float) -> list[dict[str, Any]]:
    return [
        {"scope": pause.scope, "until": pause.until, "by": pause.by, "reason": pause.reason}
        for _, pause in sorted(ledger.pauses.items())
        if pause.until is None or now < pause.until
    ]
