"""One marked job with all that is decided by, and the judgement on its run."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from nodewatch.model import auto_resume
from nodewatch.model.actions import Action, KeepNodes
from nodewatch.model.cluster import SlurmJob, Snapshot
from nodewatch.model.health import Severity
from nodewatch.model.ledger import Case, Cause, Ledger, MarkedJob
from nodewatch.model.plan import Held, Judgement
from nodewatch.policy.blame import Blame, Evidence
from nodewatch.policy.progress import hang_of
from nodewatch.policy.rules import Rules
from nodewatch.policy.spares import is_fit

KEEP_MINUTES = 1
"""Slurm counts reservations in minutes; one outlasts the clean-up of a run by far and ends by itself if we die."""
_GPU_HELD = frozenset({"gpu.memory_held", "gpu.stray_process"})


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
    try:
        asked = auto_resume.parse(job.budget)
    except ValueError:
        # Anyone can write the mark into a job's Extra field.
        return rules.requeue_limit
    if asked.is_off:
        return 0
    return rules.requeue_limit if asked.retries is None else asked.retries


def blamed(job: MarkedJob, cases: Sequence[Case], rules: Rules, now: float) -> Case | None:
    """The case that explains why the present run of `job` ended, or must end.

    While the job runs, that is an admitted fatal case on one of its nodes. Once it has ended, a fatal finding on one of
    them around the end: a process dies of a fault before or shortly after the fault is noticed.
    """
    for case in cases:
        if case.severity < Severity.FATAL or case.node not in job.nodes:
            continue
        if job.inside_step is not None and case.node in job.inside:
            # It went on without that node.
            continue
        end = now if job.ended_at is None else job.ended_at
        earliest = max(job.started_at, end - rules.attribution_window_s) if job.ended_at else job.started_at
        latest = end + rules.attribution_wait_s
        began = case.fault_at or case.opened_at
        is_current = job.ended_at is None and case.is_out
        if is_current or (job.ended_at is not None and earliest <= began <= latest):
            return case
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One marked job and all that is decided by."""

    job: MarkedJob
    seen: SlurmJob | None
    cases: Suspects
    snapshot: Snapshot
    ledger: Ledger
    rules: Rules
    now: float

    @property
    def whole(self) -> MarkedJob:
        """The job with the nodes of all components of its heterogeneous job: a fault under one of them ends them all."""
        if self.seen is None or self.seen.het_job_id is None:
            return self.job
        nodes = {name for mate in self.mates for name in mate.nodes} | set(self.job.nodes)
        return dataclasses.replace(self.job, nodes=tuple(sorted(nodes)))

    @property
    def mates(self) -> list[SlurmJob]:
        """The components of its heterogeneous job, itself among them, by id."""
        if self.seen is None or self.seen.het_job_id is None:
            return []
        same = [job for job in self.snapshot.jobs.values() if job.het_job_id == self.seen.het_job_id]
        return sorted(same, key=lambda job: job.job_id)

    @property
    def is_hot(self) -> bool:
        """Whether what its nodes report about the end of the run may still be on its way."""
        return self.job.ended_at is not None and self.now < self.job.ended_at + self.rules.attribution_wait_s

    def evidence(self, case: Case | None, *, states: frozenset[str]) -> Evidence:
        """All that is known of the present run."""
        job, whole = self.job, self.whole
        ended_at = self.now if job.ended_at is None else job.ended_at
        listed = self.snapshot.nodes
        preempted_at = self.seen.preempted_at if self.seen is not None else None
        hang = hang_of(dataclasses.replace(job, ended_at=None), self.ledger)
        return Evidence(
            states=states,
            exit_code=job.exit_code,
            ended_at=job.ended_at,
            case=case,
            witness=job.witness,
            unseen=tuple(n for n in whole.nodes if not _cleared(n, ended_at, self.snapshot, self.rules, self.now)),
            down=tuple(n for n in whole.nodes if n in listed and listed[n].is_down),
            gpu_held=next((name for name in whole.nodes if _has_held_gpu(name, self.snapshot)), ""),
            was_preempted=preempted_at is not None and preempted_at >= job.started_at,
            hang=hang.text if hang is not None else "",
            hang_node=hang.node if hang is not None else "",
            failed_step=job.failed_step,
        )


def judge(scene: Scene, seen: SlurmJob, found: Blame, *, by_slurm: bool = False) -> JobDecision:
    """The judgement, and the nodes kept for the restart that it promises.

    `by_slurm`: Slurm has put it back into the queue already, and the judgement only says whether that is well.
    """
    job = scene.job
    restarts, text = ruling(job, found, scene.rules, is_batch=seen.is_batch, by_slurm=by_slurm)
    judgement = Judgement(
        job_id=job.job_id,
        restart_count=job.restart_count,
        cause=found.cause,
        text=text,
        restarts=restarts,
        node=found.node,
        evidence=found.evidence,
    )
    keep = None
    if restarts and not by_slurm:
        # At once, not with the requeue: the job may die of the fault any moment and give its nodes away.
        keep = keep_nodes(job, seen, scene.cases, scene.snapshot)
    return JobDecision(judgement=judgement, actions=() if keep is None else (keep,))


def ruling(
    job: MarkedJob, found: Blame, rules: Rules, *, is_batch: bool = True, by_slurm: bool = False
) -> tuple[bool, str]:
    """Whether the job is started again after `found`, and the sentence that its user reads."""
    limit = limit_of(job, rules)
    if found.is_hopeless:
        return False, f"{found.why}: not started again"
    if found.cause is Cause.LIMIT and not found.goes_on:
        return False, f"{found.why}: not started again; save before the end and end with code 94, or ask for more time"
    if found.cause is Cause.PREEMPTION and not found.goes_on:
        tail = (
            "Slurm put it back into the queue" if by_slurm else "not started again, as PreemptMode does not requeue it"
        )
        return False, f"{found.why}: {tail}"
    if found.cause is Cause.PROGRAM and job.program_requeues >= rules.program_retries:
        return False, f"{found.why}: not started again; look at the job's own output"
    if found.cause is Cause.UNKNOWN and job.unknown_requeues > 0:
        return False, f"{found.why}, again after a retry, and no fault is known: not started again"
    if not is_batch:
        return False, f"{found.why}: not started again, as Slurm can put batch jobs (sbatch) alone back into the queue"
    if job.requeues >= limit and by_slurm:
        return False, f"{found.why}; all {limit} restarts are used up, and what Slurm does with it is Slurm's own"
    if job.requeues >= limit:
        return False, f"{found.why}, but all {limit} restarts are used up: not started again"
    if found.cause in (Cause.UNKNOWN, Cause.PROGRAM):
        return True, f"{found.why}: one retry"
    return True, f"{found.why}: restart {job.requeues + 1} of {limit}"


def keep_nodes(job: MarkedJob, seen: SlurmJob, cases: Suspects, snapshot: Snapshot) -> KeepNodes | None:
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
    return KeepNodes(key=f"{run_key(job)}:keep", job_id=job.job_id, name=name, nodes=nodes, minutes=KEEP_MINUTES)


def run_key(job: MarkedJob) -> str:
    """Actions about one run of one job share this; a job id alone is used again after Slurm's state is wiped."""
    return f"job:{job.job_id}:{int(job.started_at)}:{job.restart_count}"


def _has_held_gpu(node: str, snapshot: Snapshot) -> bool:
    view = snapshot.agents.get(node)
    findings = view.verdict.findings if view is not None and view.verdict is not None else ()
    return any(standing.finding.fault in _GPU_HELD for standing in findings)


def _cleared(node: str, ended_at: float, snapshot: Snapshot, rules: Rules, now: float) -> bool:
    """Whether the node's agent has called it healthy since the job ended."""
    return is_fit(node, snapshot, rules, now) and snapshot.agents[node].heard_at >= ended_at
