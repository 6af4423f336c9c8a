"""What the ledger learns of one marked job from the records about it: pure steps from job to job, for the fold."""

from __future__ import annotations

import dataclasses
from typing import Any

from nodewatch.model.ledger import Cause, MarkedJob
from nodewatch.model.records import Record
from nodewatch.model.witness import Interruption, Witness

_INTERRUPTIONS_KEPT = 12
_EVIDENCE_KEPT = 6
_LINE = 300
_OWN_FAULTS = frozenset({Cause.PROGRAM.value, Cause.UNKNOWN.value, Cause.LIMIT.value})


def started(known: MarkedJob | None, record: Record, budget: str) -> MarkedJob:
    """A run begins."""
    job_id, restart = int(record.data["job_id"]), int(record.data.get("restart_count") or 0)
    at = float(record.data.get("at", record.at))
    # A job id is used again after a slurmctld wiped its state: run 0 is always a new job.
    if known is None or restart == 0:
        known = MarkedJob(job_id=job_id, budget=budget, restart_count=0, nodes=(), started_at=0.0)
    elif restart > known.restart_count:
        known = _back(known, at)
    is_same_run = restart == known.restart_count and known.started_at == at
    return dataclasses.replace(
        known,
        budget=budget,
        restart_count=restart,
        nodes=tuple(record.data.get("node_names", ())),
        started_at=at,
        user=str(record.data.get("user") or ""),
        partition=str(record.data.get("partition") or ""),
        ended_at=None,
        exit_code="",
        witness=known.witness if is_same_run else None,
        inside=known.inside if is_same_run else (),
        inside_step=known.inside_step if is_same_run else None,
    )


def ended(known: MarkedJob, record: Record) -> MarkedJob:
    """Its present run ends."""
    at = float(record.data.get("at", record.at))
    job = dataclasses.replace(known, ended_at=at, exit_code=str(record.data.get("exit_code") or ""))
    return _with(job, known.restart_count, ended_at=at)


def went_on(known: MarkedJob, record: Record) -> MarkedJob:
    """Its present run starts again, or goes on, without some of its nodes."""
    if int(record.data["restart_count"]) != known.restart_count:
        return known
    step = record.data.get("step")
    nodes = tuple(str(node) for node in record.data["nodes"])
    return dataclasses.replace(known, inside=nodes, inside_step=None if step is None else int(step))


def judged(known: MarkedJob, record: Record) -> MarkedJob:
    """It was decided why a run ended and what follows."""
    cause, restarts = str(record.data["cause"]), bool(record.data["restarts"])
    restart, node = int(record.data["restart_count"]), str(record.data.get("node", ""))
    witness = known.witness if known.witness is not None and known.witness.restart_count == restart else None
    told = record.data.get("evidence") or ()
    run = Interruption(
        restart_count=restart,
        cause=cause,
        text=str(record.data["text"]),
        evidence=tuple(str(line)[:_LINE] for line in told)[:_EVIDENCE_KEPT],
        node=node,
        started_at=known.started_at,
        ended_at=known.ended_at,
        restarts=restarts,
        last_step=witness.last_step if witness is not None else None,
        saved_step=witness.checkpoint_step if witness is not None else None,
    )
    is_own = cause in _OWN_FAULTS or (cause == Cause.INFRASTRUCTURE.value and not node)
    return dataclasses.replace(
        known,
        judged=str(record.data["text"]),
        judged_restart=restart,
        judged_cause=cause,
        judged_node=node,
        restarts=restarts,
        # Counted when it is decided, not when it is done: a crash in between must not give the job a restart for nothing.
        requeues=known.requeues + restarts,
        unknown_requeues=known.unknown_requeues + (restarts and cause == Cause.UNKNOWN.value),
        program_requeues=known.program_requeues + (restarts and cause == Cause.PROGRAM.value),
        failed_step=run.last_step if is_own else None,
        witness=_slim(known.witness),
        interruptions=_put(known.interruptions, run),
    )


def witnessed(known: MarkedJob, record: Record) -> MarkedJob:
    """The agent's event `job_witness`. Of a run that is not the present one only the story learns."""
    witness = Witness.from_json(record.data, record.at)
    restart = witness.restart_count
    job = _with(known, restart, last_step=witness.last_step, saved_step=witness.checkpoint_step)
    if witness.first_step is not None:
        job = _with(job, restart - 1, resumed_step=witness.first_step)
    if restart != known.restart_count:
        return job
    if known.judged_restart < restart:
        return dataclasses.replace(job, witness=witness)
    # Judged before this came, as when a fault of a node ended the run: only its steps are of use any more.
    own = known.failed_step if known.judged_cause not in _OWN_FAULTS else witness.last_step
    return dataclasses.replace(job, witness=_slim(witness), failed_step=own)


def _back(known: MarkedJob, at: float) -> MarkedJob:
    """The next run of the job starts at `at`."""
    if known.judged_restart < known.restart_count:
        run = Interruption(
            restart_count=known.restart_count,
            cause=Cause.UNKNOWN.value,
            text="put back into the queue by Slurm, its user or an administrator",
            started_at=known.started_at,
            ended_at=known.ended_at,
            restarts=True,
            last_step=known.witness.last_step if known.witness is not None else None,
            saved_step=known.witness.checkpoint_step if known.witness is not None else None,
        )
        known = dataclasses.replace(known, interruptions=_put(known.interruptions, run))
    return _with(known, known.restart_count, back_at=at)


def _slim(witness: Witness | None) -> Witness | None:
    """Without what the judgement has taken over already: thousands of jobs are remembered."""
    return None if witness is None else dataclasses.replace(witness, lines=None, failures=None)


def _put(known: tuple[Interruption, ...], run: Interruption) -> tuple[Interruption, ...]:
    others = tuple(each for each in known if each.restart_count != run.restart_count)
    return (*others, run)[-_INTERRUPTIONS_KEPT:]


def _with(job: MarkedJob, restart: int, **values: Any) -> MarkedJob:
    """`job` with what is learnt of the interruption of one of its runs; what is None teaches nothing."""
    new = {name: value for name, value in values.items() if value is not None}
    if not new or all(each.restart_count != restart for each in job.interruptions):
        return job
    told = tuple(
        dataclasses.replace(each, **new) if each.restart_count == restart else each for each in job.interruptions
    )
    return dataclasses.replace(job, interruptions=told)
