"""Marked jobs: was it the machine or the program, and what follows for the job."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nodewatch.model.actions import Action, Expedite, FreeNodes, KeepNodes, Requeue
from nodewatch.model.cluster import SlurmJob, Snapshot
from nodewatch.model.health import Severity
from nodewatch.model.ledger import ActionState, Case, Cause, Ledger, MarkedJob
from nodewatch.model.plan import Held, Judgement
from nodewatch.policy.attempts import due
from nodewatch.policy.rules import Rules
from nodewatch.policy.spares import is_fit

EXTRA_MARK = "nodewatch:auto-resume="
_STARTS_SOON_S = 1.0
KEEP_MINUTES = 1
"""Slurm counts reservations in minutes; one outlasts the clean-up of a run by far and ends by itself if we die."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobDecision:
    """What follows for one job, any part of it empty."""

    judgement: Judgement | None = None
    actions: tuple[Action, ...] = ()
    held: Held | None = None


class Suspects:
    """The cases that may explain why jobs ended, in the order in which they are asked, with an index by node."""

    def __init__(self, cases: Sequence[Case]) -> None:
        self._by_node: dict[str, list[tuple[int, Case]]] = {}
        for place, case in enumerate(cases):
            if case.severity >= Severity.FATAL:
                self._by_node.setdefault(case.node, []).append((place, case))
        self.out = frozenset(case.node for case in cases if case.is_out)
        self.fatal = frozenset(case.node for case in cases if case.is_out and case.severity >= Severity.FATAL)
        self.spares = {case.node: case.spare for case in cases if case.is_out and case.spare}
        """The spare that stands in, by the node that is out."""

    def of(self, nodes: Sequence[str]) -> list[Case]:
        """The fatal cases of `nodes`."""
        found = [entry for node in nodes if node in self._by_node for entry in self._by_node[node]]
        if not found:
            return []
        return [case for _, case in sorted(found, key=lambda entry: entry[0])]


def limit_of(job: MarkedJob, rules: Rules) -> int:
    """How often the job may be started again for a node's fault."""
    # Anyone can write the mark into a job's Extra field: "²" is a digit to str.isdigit and no number to int.
    return int(job.budget) if re.fullmatch(r"[0-9]{1,6}", job.budget) else rules.requeue_limit


def blamed(job: MarkedJob, cases: Sequence[Case], rules: Rules, now: float) -> Case | None:
    """The case that explains why the present run of `job` ended, or must end.

    While the job runs, that is an admitted fatal case on one of its nodes. Once it has ended, a fatal finding on one of
    them around the end: a process dies of a fault before or shortly after the fault is noticed.
    """
    for case in cases:
        if case.severity < Severity.FATAL or case.node not in job.nodes:
            continue
        end = now if job.ended_at is None else job.ended_at
        earliest = max(job.started_at, end - rules.attribution_window_s) if job.ended_at else job.started_at
        latest = end + rules.attribution_wait_s
        began = case.fault_at or case.opened_at
        is_current = job.ended_at is None and case.is_out
        if is_current or (job.ended_at is not None and earliest <= began <= latest):
            return case
    return None


def decide(
    job: MarkedJob, cases: Suspects, snapshot: Snapshot, ledger: Ledger, rules: Rules, now: float
) -> JobDecision:
    """What follows for `job` now. `cases` are those that may explain it, admitted ones first."""
    seen = snapshot.jobs.get(job.job_id)
    if seen is not None and seen.is_pending:
        return _start_again(job, seen, cases, snapshot, ledger, rules, now)
    if job.judged_restart >= job.restart_count:
        return _carry_out(job, seen, cases, snapshot, ledger, rules, now)
    case = blamed(job, cases.of(job.nodes), rules, now)
    if job.ended_at is None:
        if case is None or seen is None or not seen.is_running:
            return JobDecision()
        return _judge_hardware(job, seen, case, cases, snapshot, rules)
    if seen is None or not seen.has_failed:
        # Finished, cancelled, out of time or preempted: not a failure that a restart would mend.
        return JobDecision()
    if case is not None:
        if not case.is_admitted:
            why = f"{case.node} has {case.fault}, but its case is held back: {case.why}"
            return JobDecision(held=Held(subject=f"job {job.job_id}", why=why, case_id=case.case_id))
        return _judge_hardware(job, seen, case, cases, snapshot, rules)
    if now < job.ended_at + rules.attribution_wait_s:
        why = f"failed with exit code {job.exit_code}; waiting for what its nodes report before judging"
        return JobDecision(held=Held(subject=f"job {job.job_id}", why=why))
    doubtful = [name for name in job.nodes if not _cleared(name, job.ended_at, snapshot, rules, now)]
    if not doubtful:
        text = (
            f"the program failed (exit code {job.exit_code}) and its nodes {','.join(job.nodes)} are healthy: not started "
            "again; look at the job's own output"
        )
        return _judgement(job, Cause.PROGRAM, text, restarts=False)
    if job.unknown_requeues == 0 and job.requeues < limit_of(job, rules):
        text = f"failed (exit code {job.exit_code}) and nothing is known of {','.join(doubtful)}: one retry"
        return _judgement(job, Cause.UNKNOWN, text, restarts=True)
    text = f"failed again (exit code {job.exit_code}) after a retry and no fault is known: not started again"
    return _judgement(job, Cause.UNKNOWN, text, restarts=False)


def _judge_hardware(
    job: MarkedJob, seen: SlurmJob, case: Case, cases: Suspects, snapshot: Snapshot, rules: Rules
) -> JobDecision:
    limit = limit_of(job, rules)
    what = f"{case.node} failed ({case.fault} on {case.subject})"
    if job.requeues >= limit:
        text = f"{what}, but all {limit} restarts are used up: not started again"
        return _judgement(job, Cause.HARDWARE, text, restarts=False, node=case.node)
    text = f"{what}: restart {job.requeues + 1} of {limit}"
    decision = _judgement(job, Cause.HARDWARE, text, restarts=True, node=case.node)
    # At once, not with the requeue: the job may die of the fault any moment and give its nodes away.
    keep = _keep_nodes(job, seen, cases, snapshot)
    return dataclasses.replace(decision, actions=() if keep is None else (keep,))


def _judgement(job: MarkedJob, cause: Cause, text: str, *, restarts: bool, node: str = "") -> JobDecision:
    judgement = Judgement(
        job_id=job.job_id, restart_count=job.restart_count, cause=cause, text=text, restarts=restarts, node=node
    )
    return JobDecision(judgement=judgement)


def _carry_out(
    job: MarkedJob,
    seen: SlurmJob | None,
    cases: Suspects,
    snapshot: Snapshot,
    ledger: Ledger,
    rules: Rules,
    now: float,
) -> JobDecision:
    """The requeue that the last judgement asks for."""
    if seen is None or job.judged_restart != job.restart_count or seen.has_succeeded or not job.restarts:
        return JobDecision()
    requeue = Requeue(
        key=f"{_run_key(job)}:requeue",
        job_id=job.job_id,
        node=job.judged_node,
        cause=job.judged_cause,
        reason=job.judged,
        slurm_id=seen.slurm_id,
    )
    if not due(requeue, ledger, rules, now):
        return JobDecision()
    keep = _keep_nodes(job, seen, cases, snapshot)
    actions: tuple[Action, ...] = (requeue,)
    if keep is not None and due(keep, ledger, rules, now):
        actions = (keep, requeue)
    return JobDecision(actions=actions)


def _keep_nodes(job: MarkedJob, seen: SlurmJob, cases: Suspects, snapshot: Snapshot) -> KeepNodes | None:
    """The job's healthy nodes and the spare, kept from jobs that wait for nodes in the same partition.

    A requeued job may start only after Slurm has cleaned up its last run, and by then a waiting one has the nodes.
    """
    if not any(j.is_pending and j.partition == seen.partition for j in snapshot.jobs.values()):
        return None
    spares = {cases.spares[node] for node in job.nodes if node in cases.spares}
    nodes = tuple(sorted((set(job.nodes) - cases.out) | spares))
    if not nodes:
        return None
    name = f"nodewatch-{job.job_id}-{job.restart_count}"
    return KeepNodes(key=f"{_run_key(job)}:keep", job_id=job.job_id, name=name, nodes=nodes, minutes=KEEP_MINUTES)


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


def _run_key(job: MarkedJob) -> str:
    """Actions about one run of one job share this; a job id alone is used again after Slurm's state is wiped."""
    return f"job:{job.job_id}:{int(job.started_at)}:{job.restart_count}"


def _start_again(
    job: MarkedJob, seen: SlurmJob, cases: Suspects, snapshot: Snapshot, ledger: Ledger, rules: Rules, now: float
) -> JobDecision:
    """A requeued job: let it start at once, at the front, away from nodes under repair.

    Slurm itself requeues a job whose node went down; that counts the same, so this does not ask who requeued it.
    """
    interrupted = job.judged_restart == job.restart_count or job.ended_at is not None or seen.restart_count > 0
    if not interrupted or "COMPLETING" in seen.states or now < _startable_at(job, ledger):
        return JobDecision()
    suspects = cases.fatal
    # What the user excluded stays; what we excluded goes once the node is cured, or the job would wait for ever beside
    # the very machine that was replaced for it.
    exclude = tuple(sorted((set(seen.excluded_nodes) - set(job.excluded)) | suspects))
    waits = seen.begins_at is not None and seen.begins_at > now + _STARTS_SOON_S
    if not waits and exclude == tuple(sorted(seen.excluded_nodes)):
        return JobDecision()
    key = f"{_run_key(job)}:expedite:{','.join(exclude)}"
    rivals = [j.priority for j in snapshot.jobs.values() if j.is_pending and j.partition == seen.partition]
    action = Expedite(
        key=key,
        job_id=job.job_id,
        priority=max([seen.priority, *(p + 1 for p in rivals if p >= seen.priority)]),
        exclude=exclude,
        ours=tuple(sorted(suspects - (set(seen.excluded_nodes) - set(job.excluded)))),
        require=None
        if not set(exclude) & set(seen.required_nodes)
        else tuple(sorted(set(seen.required_nodes) - set(exclude))),
        comment=f"nodewatch: {job.judged}" if job.judged else "nodewatch: started again after its node went down",
    )
    return JobDecision(actions=(action,)) if due(action, ledger, rules, now) else JobDecision()


def _startable_at(job: MarkedJob, ledger: Ledger) -> float:
    """The earliest instant at which the job may start again: the second after the one in which its last run was ended.

    slurmd revokes a job's credentials by whole seconds: a run that starts in the very second in which the last one was
    ended is answered "Job credential revoked" and the job fails (seen on 24.11).
    """
    requeue = ledger.actions.get(f"{_run_key(job)}:requeue")
    ended = max(job.ended_at or 0.0, requeue.at if requeue is not None else 0.0)
    return float(int(ended) + 1) if ended else 0.0


def _cleared(node: str, ended_at: float, snapshot: Snapshot, rules: Rules, now: float) -> bool:
    """Whether the node's agent has called it healthy since the job ended."""
    return is_fit(node, snapshot, rules, now) and snapshot.agents[node].heard_at >= ended_at


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
        if mark == job.extra or not job.is_running or job.started_at is None:
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
