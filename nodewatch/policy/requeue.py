"""Marked jobs: what follows for a job that was interrupted. Why it was, policy/blame.py tells."""

from __future__ import annotations

from collections.abc import Iterator

from nodewatch.model.actions import Action, FreeNodes, KeepNodes, Requeue
from nodewatch.model.auto_resume import EXTRA_MARK
from nodewatch.model.cluster import SlurmJob, Snapshot
from nodewatch.model.ledger import ActionState, Case, Cause, Ledger, MarkedJob
from nodewatch.model.plan import Held
from nodewatch.policy.attempts import due
from nodewatch.policy.blame import Blame, blame
from nodewatch.policy.inside import waited_for
from nodewatch.policy.job_scene import KEEP_MINUTES, JobDecision, Scene, Suspects, blamed, judge, keep_nodes, run_key
from nodewatch.policy.progress import hang_of
from nodewatch.policy.queued import in_queue
from nodewatch.policy.rules import Rules

_ENDED_BY_SLURM = frozenset({"TIMEOUT", "DEADLINE", "PREEMPTED"})


def decide(
    job: MarkedJob, cases: Suspects, snapshot: Snapshot, ledger: Ledger, rules: Rules, now: float
) -> JobDecision:
    """What follows for `job` now. `cases` are those that may explain it, admitted ones first."""
    seen = snapshot.jobs.get(job.job_id)
    scene = Scene(job=job, seen=seen, cases=cases, snapshot=snapshot, ledger=ledger, rules=rules, now=now)
    if seen is None:
        return JobDecision()
    if seen.is_pending:
        return in_queue(scene, seen)
    if job.judged_restart >= job.restart_count:
        return _carry_out(scene, seen)
    case = blamed(scene.whole, cases.of(scene.whole.nodes), rules, now)
    if job.ended_at is None:
        return _while_it_runs(scene, seen, case)
    if "EXPEDITING" in seen.states:
        why = "Slurm itself waits for its epilogs and requeues it if one of them fails (--requeue=expedite)"
        return JobDecision(held=Held(subject=f"job {job.job_id}", why=why))
    if not (seen.has_failed or seen.states & _ENDED_BY_SLURM):
        # Finished or cancelled: not a failure that a restart would mend.
        return JobDecision()
    return _after_its_end(scene, seen, case)


def _while_it_runs(scene: Scene, seen: SlurmJob, case: Case | None) -> JobDecision:
    if not seen.is_running:
        return JobDecision()
    inside = waited_for(scene.job, seen, scene.cases.of(scene.job.nodes), scene.rules, scene.now)
    if case is not None and inside is None:
        return judge(scene, seen, blame(scene.evidence(case, states=frozenset())))
    hang = hang_of(scene.job, scene.ledger)
    if hang is None or not hang.is_acted_on:
        return JobDecision(held=inside)
    failed = scene.job.failed_step
    if failed is not None and hang.step <= failed:
        why = f"{hang.text}; it stood still at step {failed} before: it hangs of itself (`scancel {seen.slurm_id}` ends it)"
        found = Blame(cause=Cause.PROGRAM, why=why, is_hopeless=True)
    else:
        cause = Cause.INFRASTRUCTURE if hang.node else Cause.UNKNOWN
        found = Blame(cause=cause, why=hang.text, node=hang.node)
    return judge(scene, seen, found)


def _after_its_end(scene: Scene, seen: SlurmJob, case: Case | None) -> JobDecision:
    job = scene.job
    subject = f"job {job.job_id}"
    if case is None and scene.is_hot:
        why = f"failed with exit code {job.exit_code}; waiting for what its nodes report before judging"
        return JobDecision(held=Held(subject=subject, why=why))
    found = blame(scene.evidence(case, states=seen.states))
    if case is not None and not case.is_admitted and found.node == case.node:
        why = f"{case.node} has {case.fault}, but its case is held back: {case.why}"
        return JobDecision(held=Held(subject=subject, why=why, case_id=case.case_id))
    return judge(scene, seen, found)


def _carry_out(scene: Scene, seen: SlurmJob) -> JobDecision:
    """The requeue that the last judgement asks for."""
    job, ledger, rules, now = scene.job, scene.ledger, scene.rules, scene.now
    if job.judged_restart != job.restart_count or seen.has_succeeded or not job.restarts:
        return JobDecision()
    if "EXPEDITING" in seen.states or not _acts_for_all(scene, seen):
        # Slurm has begun to requeue it, or another component of its heterogeneous job is requeued with all the others.
        return JobDecision()
    requeue = Requeue(
        key=f"{run_key(job)}:requeue",
        job_id=job.job_id,
        node=job.judged_node,
        cause=job.judged_cause,
        reason=job.judged,
        slurm_id=seen.requeue_id,
    )
    if not due(requeue, ledger, rules, now):
        return JobDecision()
    keep = keep_nodes(job, seen, scene.cases, scene.snapshot)
    actions: tuple[Action, ...] = (requeue,)
    if keep is not None and due(keep, ledger, rules, now):
        actions = (keep, requeue)
    return JobDecision(actions=actions)


def _acts_for_all(scene: Scene, seen: SlurmJob) -> bool:
    """Whether this component of a heterogeneous job asks for the requeue of all: the first that is to restart does."""
    for mate in scene.mates:
        known = scene.ledger.jobs.get(mate.job_id)
        if (
            mate.job_id < seen.job_id
            and known is not None
            and known.judged_restart == known.restart_count
            and known.restarts
        ):
            return mate.has_succeeded
    return True


def free_kept(ledger: Ledger, rules: Rules, now: float) -> Iterator[FreeNodes]:
    """Reservations of ours to delete: the job was let start, or that did not come about in time."""
    # Every reservation ever made stands in the ledger: those already deleted are passed over before anything is searched.
    kept = sorted(
        (key.removesuffix(":keep"), record.at, record.action)
        for key, record in ledger.actions.items()
        if isinstance(record.action, KeepNodes)
        and record.state is not ActionState.FAILED
        and not ledger.is_done(f"{key.removesuffix(':keep')}:free")
    )
    for prefix, kept_at, keep in kept:
        expedited = any(
            known.state is ActionState.DONE
            for k, known in ledger.actions.items()
            if k.startswith(f"{prefix}:expedite:")
        )
        ran_out = now - kept_at > 60 * KEEP_MINUTES
        free = FreeNodes(key=f"{prefix}:free", job_id=keep.job_id, name=keep.name)
        if (expedited or ran_out) and due(free, ledger, rules, now):
            yield free


def interrupted_without_mark(case: Case, snapshot: Snapshot, ledger: Ledger) -> Iterator[Held]:
    """Jobs on a broken node that nobody asked to resume: they are left to end by themselves, and it is said."""
    for job in snapshot.jobs_on(case.node):
        if job.job_id not in ledger.jobs and job.is_running:
            why = f"runs on {case.node}, which failed, and was not submitted with --auto-resume: left to end by itself"
            yield Held(subject=f"job {job.job_id}", why=why, case_id=case.case_id)


def unrecorded(snapshot: Snapshot, ledger: Ledger) -> Iterator[dict[str, object]]:
    """Running jobs whose mark stands only in Slurm's Extra field (a step submitted with the flag), as `job_started` records."""
    for job_id, job in sorted(snapshot.jobs.items()):
        mark = job.extra.removeprefix(EXTRA_MARK)
        # A job that is not to be started again is not remembered: its record would be written at each look.
        if mark in (job.extra, "off") or not job.is_running or job.started_at is None:
            continue
        known = ledger.jobs.get(job_id)
        if known is not None and known.restart_count == job.restart_count:
            continue
        yield {
            "job_id": job_id,
            "restart_count": job.restart_count,
            "nodes": ",".join(job.nodes),
            "node_names": list(job.nodes),
            "user": job.user,
            "partition": job.partition,
            "auto_resume": mark,
            "at": job.started_at,
        }
