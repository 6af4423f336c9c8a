"""What the operator's commands show, from the engine's state: pure functions to plain JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nodewatch.controller.pair_views import pairs_outline
from nodewatch.journal.story import sentences
from nodewatch.model.cluster import AgentView, Snapshot
from nodewatch.model.ledger import Case, Ledger, Tested
from nodewatch.model.plan import Held
from nodewatch.model.records import Record
from nodewatch.policy import bootstrap, parting
from nodewatch.policy.deep_checks import is_pending
from nodewatch.policy.job_scene import limit_of
from nodewatch.policy.lost import is_silent
from nodewatch.policy.rules import Rules


def status(
    snapshot: Snapshot, ledger: Ledger, held: Sequence[Held], rules: Rules, problems: Sequence[str], now: float
) -> dict[str, Any]:
    """The cluster as `nodewatch status` shows it."""
    names = sorted({*snapshot.nodes, *snapshot.agents}, key=_natural)
    return {
        "at": now,
        "mode": rules.mode,
        "paused": rules.paused,
        "pauses": [
            {"scope": pause.scope, "until": pause.until, "by": pause.by, "reason": pause.reason}
            for _, pause in sorted(ledger.pauses.items())
            if pause.until is None or now < pause.until
        ],
        "slurm_error": snapshot.slurm_error,
        "ec2_error": snapshot.ec2_error,
        "problems": list(problems),
        "nodes": [_node(name, snapshot, ledger, held, rules, now) for name in names],
        "jobs": [_job(job_id, snapshot, ledger, held, rules) for job_id in sorted({*ledger.jobs, *_told_of(held)})],
        "cluster": [item.why for item in held if item.subject == "cluster"],
        "pairs": pairs_outline(ledger),
    }


def explain(
    subject: str,
    snapshot: Snapshot,
    ledger: Ledger,
    held: Sequence[Held],
    rules: Rules,
    records: Iterable[Record],
    now: float,
) -> dict[str, Any]:
    """The story of one node or job as `nodewatch explain` shows it; `error` when it is neither.

    `remembered_since` is the time of the first of `records`, None where the journal has no older ones.
    """
    records = list(records)
    since = records[0].at if records and records[0].number > 1 else None
    if subject.isascii() and subject.isdigit() and len(subject) <= 18:
        job_id = int(subject)
        if job_id not in ledger.jobs and job_id not in snapshot.jobs:
            return {"error": f"no job {subject} is known: give the id of a job of this cluster, or a node name"}
        return {
            "kind": "job",
            "subject": subject,
            "now": _job(job_id, snapshot, ledger, held, rules),
            "story": sentences(records, job_id=job_id),
            "remembered_since": since,
        }
    if subject not in snapshot.nodes and subject not in snapshot.agents:
        return {"error": f"no node {subject!r} is known to Slurm or by its agent: `sinfo` lists the names"}
    return {
        "kind": "node",
        "subject": subject,
        "now": _node(subject, snapshot, ledger, held, rules, now),
        "story": sentences(records, node=subject),
        "remembered_since": since,
    }


def check_status(
    key: str,
    snapshot: Snapshot,
    ledger: Ledger,
    held: Sequence[Held],
    rules: Rules,
    records: Sequence[Record],
    now: float,
) -> dict[str, Any]:
    """How far the validation that an operator asked for with `key` is: `waiting`, `running`, `ended` or `gone`."""
    node = key.split(":")[1] if key.count(":") >= 2 else ""
    view = snapshot.agents.get(node)
    runs = {k: run for k, run in ledger.check_runs.items() if k.startswith(f"{key}.")}
    pending = any(is_pending(run, rules, now) for run in runs.values())
    ended = next((r for r in reversed(records) if r.kind == "validated" and r.data.get("key") in runs), None)
    told: dict[str, Any] = {"key": key, "node": node, "state": "gone", "why": "the wish was withdrawn or replaced"}
    if key in ledger.check_wishes:
        if not pending:
            whys = [item.why for item in held if item.subject == node and "checks were asked for" in item.why]
            return {**told, "state": "waiting", "why": "; ".join(whys) or "the agent has not been asked yet"}
        is_seen = view is not None and view.validating in runs
        return {**told, "state": "running", "why": view.progress if view and is_seen else "the agent was asked"}
    if ended is not None:
        answer = {name: ended.data.get(name) for name in ("passed", "seconds", "results", "not_run", "suite")}
        return {**told, "state": "ended", "why": "", **answer}
    return told


def _node(
    name: str, snapshot: Snapshot, ledger: Ledger, held: Sequence[Held], rules: Rules, now: float
) -> dict[str, Any]:
    node = snapshot.nodes.get(name)
    view = snapshot.agents.get(name)
    cases = ledger.open_cases_of(name)
    group = rules.group_of(name)
    if view is None:
        health = "no agent heard"
    elif is_silent(view, rules, now):
        health = f"agent silent for {now - view.heard_at:.0f} s"
    elif view.verdict is None:
        health = "unknown"
    else:
        health = view.verdict.state.value
    worst = view.verdict.worst if view is not None and view.verdict is not None else None
    return {
        "node": name,
        "group": group.name if group else None,
        "slurm": sorted(node.states) if node else None,
        "reason": node.reason if node else "",
        "address": node.address if node else "",
        "is_spare": bool(node and node.is_spare),
        "health": health,
        "finding": f"{worst.finding.fault} on {worst.finding.subject}" if worst else "",
        "unknown": [f"{check}: {error}" for check, error in view.verdict.unknown] if view and view.verdict else [],
        "instance": view.instance_id if view else "",
        "bootstrap": _bootstrap(name, view, ledger),
        "cases": [_case(case) for case in cases],
        "held": [item.why for item in held if item.subject == name],
        "checking": view.progress if view is not None and view.validating else "",
        "tested": _tested(ledger.tested.get(name)),
        "jobs": [job.job_id for job in snapshot.jobs_on(name)],
    }


def _tested(tested: Tested | None) -> Mapping[str, Any] | None:
    if tested is None:
        return None
    return {"at": tested.at, "passed": tested.passed, "instance": tested.instance_id}


def _bootstrap(name: str, view: AgentView | None, ledger: Ledger) -> str:
    """Why the lifecycle script of the node's present machine failed, empty where it did not say so."""
    known = ledger.agents.get(name)
    is_its_own = known is not None and view is not None and known.instance_id == view.instance_id
    return known.bootstrap if known is not None and is_its_own else ""


def _case(case: Case) -> Mapping[str, Any]:
    return {
        "case": case.case_id,
        "fault": case.fault,
        "subject": case.subject,
        "severity": case.severity.word,
        "rung": case.rung.word,
        "step": case.step.value,
        "since": case.step_at,
        "attempt": case.attempt,
        "why": case.why,
        "note": parting.note_of(case),
        "tries": [
            {**one, "words": bootstrap.cause_of(one), "text": bootstrap.words_of(one)} for one in bootstrap.tries(case)
        ],
    }


def _job(job_id: int, snapshot: Snapshot, ledger: Ledger, held: Sequence[Held], rules: Rules) -> dict[str, Any]:
    marked = ledger.jobs.get(job_id)
    seen = snapshot.jobs.get(job_id)
    return {
        "job": job_id,
        "user": (seen.user if seen else "") or (marked.user if marked else ""),
        "name": seen.name if seen else "",
        "states": sorted(seen.states) if seen else [],
        "nodes": list(seen.nodes if seen and seen.nodes else (marked.nodes if marked else ())),
        "auto_resume": marked is not None,
        "restarts": marked.requeues if marked else 0,
        "restarts_allowed": limit_of(marked, rules) if marked else 0,
        "excluded": list(marked.excluded) if marked else [],
        "judged": marked.judged if marked else "",
        "cause": marked.judged_cause if marked else "",
        "held": [item.why for item in held if item.subject == f"job {job_id}"],
    }


def _told_of(held: Sequence[Held]) -> set[int]:
    """Jobs about which something is to be said, marked or not."""
    subjects = (item.subject.removeprefix("job ") for item in held if item.subject.startswith("job "))
    return {int(subject) for subject in subjects if subject.isascii() and subject.isdigit()}


def _natural(name: str) -> tuple[str, int, str]:
    digits = name[len(name.rstrip("0123456789")) :]
    return (name[: len(name) - len(digits)], int(digits or 0), name)
