"""The story of one job as its user reads it: a pure function to plain JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nodewatch.model import auto_resume
from nodewatch.model.cluster import SlurmJob, Snapshot
from nodewatch.model.ledger import Ledger, MarkedJob
from nodewatch.model.plan import Held
from nodewatch.model.witness import Interruption
from nodewatch.policy.job_scene import limit_of
from nodewatch.policy.rules import Rules

_GONE = "Slurm does not know it any more"


def job_story(
    job: str, snapshot: Snapshot, ledger: Ledger, held: Sequence[Held], rules: Rules, now: float
) -> dict[str, Any]:
    """What `nodewatch job` shows; `error` with one sentence for what is no job.

    `job` is an id, or `<array job>_<task>` as squeue shows an element.
    """
    job_id = _id_of(job, snapshot)
    if job_id is None:
        return {"error": f"{job!r} is no job id: give a number as squeue shows it, such as 17 or 15_3"}
    marked, seen = ledger.jobs.get(job_id), snapshot.jobs.get(job_id)
    if marked is None and seen is None:
        if snapshot.slurm_error is not None:
            return {"error": f"Slurm cannot be read now ({snapshot.slurm_error}), and no marked job {job} is known"}
        return {"error": f"no job {job} is known: Slurm has forgotten it, and it was not submitted with --auto-resume"}
    whys = [item.why for item in held if item.subject == f"job {job_id}"]
    told: dict[str, Any] = {
        "job": job_id,
        "shown_as": seen.slurm_id if seen is not None else str(job_id),
        "name": seen.name if seen is not None else "",
        "user": (seen.user if seen is not None else "") or (marked.user if marked is not None else ""),
        "states": sorted(seen.states) if seen is not None else [],
        "nodes": list((seen.nodes if seen is not None else ()) or (marked.nodes if marked is not None else ())),
        "output": seen.stderr_path if seen is not None else "",
        "auto_resume": marked.budget if marked is not None else None,
        "at": now,
        "held": whys,
    }
    if marked is None:
        told["next"] = (
            "it was not submitted with --auto-resume: after a fault of a node nobody starts it again "
            "(sbatch --auto-resume=3 would have it started again)"
        )
        return told
    limit = limit_of(marked, rules)
    runs = [_interruption(each) for each in marked.interruptions]
    told |= {
        "run": marked.restart_count + 1,
        "started_at": marked.started_at,
        "ended_at": marked.ended_at,
        "directory": _directory(marked),
        "restarts": {"used": marked.requeues, "allowed": limit, "left": max(0, limit - marked.requeues)},
        "interruptions": runs,
        "lost_s": _sum(run["lost_s"] for run in runs),
        "lost_steps": _sum(run["lost_steps"] for run in runs),
        "excluded": list(marked.excluded),
        "next": _next(marked, seen, limit, whys, snapshot),
    }
    return told


def _id_of(job: str, snapshot: Snapshot) -> int | None:
    if job.isascii() and job.isdigit() and len(job) <= 18:
        return int(job)
    array, line, task = job.partition("_")
    if not (line and array.isascii() and array.isdigit() and task.isascii() and task.isdigit()):
        return None
    same = (known.job_id for known in snapshot.jobs.values() if known.slurm_id == job)
    return next(same, None)


def _directory(marked: MarkedJob) -> str:
    try:
        return auto_resume.parse(marked.budget).directory
    except ValueError:
        return ""


def _interruption(run: Interruption) -> dict[str, Any]:
    return {
        "run": run.restart_count + 1,
        "cause": run.cause,
        "text": run.text,
        "evidence": list(run.evidence),
        "node": run.node,
        "started_at": run.started_at,
        "ended_at": run.ended_at,
        "back_at": run.back_at,
        "restarts": run.restarts,
        "lost_s": run.lost_s,
        "last_step": run.last_step,
        "saved_step": run.saved_step,
        "resumed_step": run.resumed_step,
        "lost_steps": run.lost_steps,
    }


def _sum(values: Any) -> float | None:
    """Of what is known; None where nothing is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _next(marked: MarkedJob, seen: SlurmJob | None, limit: int, whys: Sequence[str], snapshot: Snapshot) -> str:
    """What happens next, in one sentence."""
    left = max(0, limit - marked.requeues)
    is_judged = marked.judged_restart == marked.restart_count
    if snapshot.slurm_error is not None:
        return f"Slurm cannot be read now ({snapshot.slurm_error}): nothing is done until it can"
    if seen is None:
        return f"nothing: {_GONE}" + (f"; {marked.judged}" if marked.judged else "")
    if whys:
        return whys[0]
    if seen.is_pending:
        return "it waits in the queue and starts as soon as its nodes are free" + _from_step(marked)
    if is_judged and marked.restarts and not seen.has_succeeded:
        return "it is put back into the queue now" + _from_step(marked)
    if seen.is_active:
        again = f"it is started again, {left} restart{'s' * (left != 1)} left" if left else "no restart is left"
        return f"it runs; after a fault of a node {again}"
    if seen.has_succeeded:
        return "nothing: it ended well"
    return f"nothing: {marked.judged}" if is_judged else "nothing: it was ended, and not by a fault"


def _from_step(marked: MarkedJob) -> str:
    step = marked.witness.checkpoint_step if marked.witness is not None else None
    return "" if step is None else f"; its newest checkpoint is of step {step}"
