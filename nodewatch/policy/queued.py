"""A marked job that waits in the queue: why Slurm put it back, who holds it, and how it starts at once."""

from __future__ import annotations

from nodewatch.model.actions import Expedite
from nodewatch.model.cluster import SlurmJob
from nodewatch.model.ledger import ActionState, Cause, Ledger, MarkedJob
from nodewatch.model.plan import Held
from nodewatch.policy.attempts import due
from nodewatch.policy.blame import blame
from nodewatch.policy.job_scene import JobDecision, Scene, blamed, judge, run_key

_STARTS_SOON_S = 1.0
_COMMENT_MAX = 400
"""Slurm takes far longer comments; squeue's readers do not."""


def in_queue(scene: Scene, seen: SlurmJob) -> JobDecision:
    """It waits: after a requeue of ours or of Slurm's own."""
    job = scene.job
    is_back = seen.restart_count > job.restart_count or job.ended_at is not None
    if is_back and job.judged_restart < job.restart_count:
        decision = _judge_in_queue(scene, seen)
        if decision is not None:
            return decision
    if seen.held_by:
        return _held(scene, seen)
    if "EXPEDITING" in seen.states:
        # Before all others, on the nodes that Slurm keeps for it: a change of ours could only make it wait.
        return JobDecision()
    if job.judged_restart == job.restart_count and not job.restarts:
        # Put back by Slurm, or by somebody's hand, and not for a fault that we would start it again for: its turn is its own.
        # A preempted job put before the others would take its nodes back from the very job that was given them.
        return _in_its_turn(scene, seen)
    return _start_again(scene, seen)


def _judge_in_queue(scene: Scene, seen: SlurmJob) -> JobDecision | None:
    """Why Slurm put it back, where that can be told; None where it is not for us to say, or too early."""
    job = scene.job
    case = blamed(scene.whole, scene.cases.of(scene.whole.nodes), scene.rules, scene.now)
    failed_to_launch = seen.held_by == "slurm" and not seen.is_expedited
    states = frozenset({"LAUNCH_FAILED"}) if failed_to_launch else frozenset[str]()
    known = scene.evidence(case, states=states)
    if seen.held_by == "slurm" and seen.is_expedited:
        # All its epilogs passed, so Slurm holds it for a fault of its own. Our own evidence reaches further than epilogs.
        if case is None and scene.is_hot:
            why = (
                "failed, and Slurm holds it as all its epilogs passed; waiting for what its nodes report before judging"
            )
            return JobDecision(held=Held(subject=f"job {job.job_id}", why=why))
        return judge(scene, seen, blame(known), by_slurm=True)
    is_told = case is not None or known.was_preempted or failed_to_launch or known.down
    if not is_told and job.witness is None:
        return None
    found = blame(known)
    if not is_told and found.cause not in (Cause.PREEMPTION, Cause.INFRASTRUCTURE, Cause.HARDWARE):
        return None
    return judge(scene, seen, found, by_slurm=True)


def _held(scene: Scene, seen: SlurmJob) -> JobDecision:
    """A held job: what Slurm itself holds is let go where it was to start again; what somebody holds stays held."""
    job = scene.job
    goes_on = job.restarts and job.judged_restart == job.restart_count
    if seen.held_by == "slurm" and goes_on:
        return _start_again(scene, seen)
    who = {"user": "its user", "administrator": "an administrator"}.get(seen.held_by, "Slurm")
    why = f"{who} holds it: `scontrol release {seen.slurm_id}` lets it go on"
    if seen.held_by == "slurm" and job.judged:
        why = f"Slurm holds it and it is left so: {job.judged}"
    return JobDecision(held=Held(subject=f"job {job.job_id}", why=why))


def _start_again(scene: Scene, seen: SlurmJob) -> JobDecision:
    """A requeued job: let it start at once, at the front, away from nodes under repair.

    Slurm itself requeues a job whose node went down; that counts the same, so this does not ask who requeued it.
    """
    job, snapshot, ledger, rules, now = scene.job, scene.snapshot, scene.ledger, scene.rules, scene.now
    interrupted = job.judged_restart == job.restart_count or job.ended_at is not None or seen.restart_count > 0
    if not interrupted or "COMPLETING" in seen.states or now < _startable_at(job, ledger):
        return JobDecision()
    suspects = scene.cases.fatal | _avoided(scene, seen)
    # What the user excluded stays; what we excluded goes once the node is cured, or the job would wait for ever beside
    # the very machine that was replaced for it.
    exclude = tuple(sorted((set(seen.excluded_nodes) - set(job.excluded)) | suspects))
    waits = seen.begins_at is not None and seen.begins_at > now + _STARTS_SOON_S
    releases = seen.held_by == "slurm"
    if not waits and not releases and exclude == tuple(sorted(seen.excluded_nodes)):
        return JobDecision()
    key = _expedite_key(job, exclude, ledger) + (":release" if releases else "")
    rivals = [j.priority for j in snapshot.jobs.values() if j.is_pending and j.partition == seen.partition]
    action = Expedite(
        key=key,
        job_id=job.job_id,
        slurm_id=seen.slurm_id,
        priority=max([seen.priority, *(p + 1 for p in rivals if p >= seen.priority)]),
        exclude=exclude,
        ours=tuple(sorted(suspects - (set(seen.excluded_nodes) - set(job.excluded)))),
        require=None
        if not set(exclude) & set(seen.required_nodes)
        else tuple(sorted(set(seen.required_nodes) - set(exclude))),
        comment=_comment(job),
        releases=releases,
    )
    return JobDecision(actions=(action,)) if due(action, ledger, rules, now) else JobDecision()


def _in_its_turn(scene: Scene, seen: SlurmJob) -> JobDecision:
    """It keeps its place and its time, and is no longer kept from nodes that we had it avoid and that are cured."""
    job, now = scene.job, scene.now
    cured = set(job.excluded) & (set(seen.excluded_nodes) - scene.cases.fatal)
    if not cured or (seen.begins_at is not None and seen.begins_at > now):
        return JobDecision()
    exclude = tuple(sorted(set(seen.excluded_nodes) - cured))
    action = Expedite(
        key=_expedite_key(job, exclude, scene.ledger),
        job_id=job.job_id,
        slurm_id=seen.slurm_id,
        priority=seen.priority,
        exclude=exclude,
        ours=tuple(sorted(set(job.excluded) - cured)),
        comment=_comment(job),
    )
    return JobDecision(actions=(action,)) if due(action, scene.ledger, scene.rules, now) else JobDecision()


def _expedite_key(job: MarkedJob, exclude: tuple[str, ...], ledger: Ledger) -> str:
    """The key of the change that makes the waiting job exclude these nodes.

    A node may fall ill, be cured and fall ill again while one run waits: with the same key the second change would be taken for
    the first, which is done, and the job would keep away from a cured node for ever. So it has the number of changes between.
    """
    prefix = f"{run_key(job)}:expedite:"
    others = sum(
        1
        for key, record in ledger.actions.items()
        if key.startswith(prefix)
        and record.state is ActionState.DONE
        and isinstance(record.action, Expedite)
        and record.action.exclude != exclude
    )
    return f"{prefix}{','.join(exclude)}" + (f":{others}" if others else "")


def _comment(job: MarkedJob) -> str:
    """The short form of the story, as squeue and sacct show it."""
    why = job.judged or "started again after its node went down"
    step = job.witness.checkpoint_step if job.witness is not None else None
    # The step last, where a long reason must not cut it off.
    tail = "" if step is None else f"; goes on from step {step}"
    return f"nodewatch: {why}"[: _COMMENT_MAX - len(tail)] + tail


def _avoided(scene: Scene, seen: SlurmJob) -> frozenset[str]:
    """The node that the job's own output blames although no check found a fault, where enough others are free."""
    job, node = scene.job, scene.job.judged_node
    if not node or node in scene.cases.out or job.judged_restart != job.restart_count or not job.restarts:
        return frozenset()
    if any(case.node == node for case in scene.cases.of([node])):
        # There was a case and it is repaired.
        return frozenset()
    usable = sum(
        1
        for name, known in scene.snapshot.nodes.items()
        if name != node and seen.partition in known.partitions and (known.is_idle or name in job.nodes)
        if name not in scene.cases.out
    )
    return frozenset({node}) if usable >= len(job.nodes) else frozenset()


def _startable_at(job: MarkedJob, ledger: Ledger) -> float:
    """The earliest instant at which the job may start again: the second after the one in which its last run was ended.

    slurmd revokes a job's credentials by whole seconds: a run that starts in the very second in which the last one was
    ended is answered "Job credential revoked" and the job fails (seen on 24.11).
    """
    requeue = ledger.actions.get(f"{run_key(job)}:requeue")
    ended = max(job.ended_at or 0.0, requeue.at if requeue is not None else 0.0)
    return float(int(ended) + 1) if ended else 0.0
