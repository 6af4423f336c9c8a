"""Which nodes are slow across jobs.

In synchronous training all ranks take the same time for a step: the slow one is not seen in `step_s`. Two things are
measurable. A program that tells its own time before the collective (`compute_s`) shows which node takes longer; and a job
that is slower on one set of nodes than it was on another has a slow node among those that are new. Either may have a reason
in the program (a pipeline's first stage, longer sequences), so one job accuses nobody: a node is named when jobs of which
it was not at the same place agree. What is named is said, and nothing is done: a pair test or a deep check proves it.
"""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from nodewatch.model.health import Finding, Remedy, Severity
from nodewatch.policy.progress import HangRules, JobView, usual_s

FAULT = "training.slow_node"
_LEAST_NODES = 3
"""Of two nodes the median is neither's: which of them is the usual one cannot be told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Witness:
    """One job in which one node was slow, or may have been."""

    node: str
    job_id: int
    place: int
    """The node's place among the job's nodes, from 0."""
    ratio: float
    """So many times as slow as the others, or as the same job elsewhere."""
    at: float
    is_direct: bool
    """By the node's own times; otherwise it is one of several that are new in a slower run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """How fast one run of a job was."""

    job_id: int
    restart_count: int
    nodes: tuple[str, ...]
    ranks: int
    usual_s: float


def run_of(job: JobView, rules: HangRules) -> Run | None:
    """The speed of `job` in this run; None while it is not known."""
    usual = usual_s(job.ranks)
    if usual is None or usual <= 0 or max((rank.steps_seen for rank in job.ranks), default=0) < 2 * rules.least_steps:
        return None
    return Run(
        job_id=job.job_id,
        restart_count=job.restart_count,
        nodes=job.nodes,
        ranks=len(job.ranks),
        usual_s=usual,
    )


def by_compute(job: JobView, rules: HangRules, now: float) -> tuple[list[Witness], set[str]]:
    """(what the ranks' own times say against nodes, the nodes that they speak for) in one job."""
    times: dict[str, list[float]] = {}
    for rank in job.ranks:
        if rank.compute_s is not None and rank.steps_seen >= rules.least_steps:
            times.setdefault(rank.node, []).append(rank.compute_s)
    if len(times) < _LEAST_NODES:
        return [], set()
    # A node is as slow as its slowest rank: the others wait for that one.
    slowest = {node: max(each) for node, each in times.items()}
    usual = statistics.median(slowest.values())
    if usual <= 0:
        return [], set()
    places = {node: place for place, node in enumerate(job.nodes)}
    slow = [
        Witness(
            node=node,
            job_id=job.job_id,
            place=places.get(node, -1),
            ratio=round(value / usual, 2),
            at=now,
            is_direct=True,
        )
        for node, value in sorted(slowest.items())
        if value >= rules.slow_factor * usual
    ]
    if 2 * len(slow) > len(times):
        return [], set()
    return slow, set(slowest) - {witness.node for witness in slow}


def by_runs(run: Run, others: Iterable[Run], rules: HangRules, now: float) -> tuple[list[Witness], set[str]]:
    """The same from the speed of `run` against other runs of the same job on as many ranks."""
    same = [
        other
        for other in others
        if other.job_id == run.job_id and other.ranks == run.ranks and other.restart_count != run.restart_count
    ]
    if not same:
        return [], set()
    best = min(same, key=lambda other: (other.usual_s, other.restart_count))
    if run.usual_s < rules.slow_factor * best.usual_s:
        # As fast as it ever was: none of its nodes holds it up.
        return [], set(run.nodes) if run.usual_s <= best.usual_s * (1 + (rules.slow_factor - 1) / 2) else set()
    ratio = round(run.usual_s / best.usual_s, 2)
    return [
        Witness(node=node, job_id=run.job_id, place=place, ratio=ratio, at=now, is_direct=False)
        for place, node in enumerate(run.nodes)
        if node not in best.nodes
    ], set()


def named(witnesses: Collection[Witness], rules: HangRules, now: float) -> dict[str, tuple[Witness, ...]]:
    """The nodes that enough jobs speak against, and what they say."""
    by_node: dict[str, dict[int, Witness]] = {}
    for witness in sorted(witnesses, key=lambda each: (each.at, each.job_id)):
        if now - witness.at <= rules.slow_window_s:
            by_node.setdefault(witness.node, {})[witness.job_id] = witness
    found: dict[str, tuple[Witness, ...]] = {}
    for node, jobs in sorted(by_node.items()):
        each = tuple(jobs[job_id] for job_id in sorted(jobs))
        # A first pipeline stage is slow on whatever node it is: the same place twice is one reason, not two.
        if len(jobs) < rules.slow_jobs or len({witness.place for witness in each}) < 2:
            continue
        is_shared = any(set(jobs) <= set(others) for other, others in by_node.items() if other != node)
        if is_shared and not all(witness.is_direct for witness in each):
            continue
        found[node] = each
    return found


def finding(node: str, witnesses: Collection[Witness]) -> Finding:
    """What is kept of a node that is named. A warning: nothing is drained for it."""
    return Finding(
        fault=FAULT,
        subject=node,
        severity=Severity.WARN,
        remedy=Remedy.HUMAN,
        evidence={
            "jobs": [
                {
                    "job": witness.job_id,
                    "times_as_slow": witness.ratio,
                    "by": "its own times" if witness.is_direct else "the job's runs elsewhere",
                }
                for witness in witnesses
            ],
            "source": "heartbeats",
        },
    )


def words(node: str, witnesses: Collection[Witness]) -> str:
    """The same, as an operator reads it."""
    told = ", ".join(f"job {witness.job_id} ({witness.ratio:g} times)" for witness in sorted(witnesses, key=_job))
    return (
        f"training is slow on {node}: {told}; nothing is done: prove it by `nodewatch check-pairs` with three other nodes, "
        f"or by `nodewatch check --deep {node}`"
    )


def _job(witness: Witness) -> int:
    return witness.job_id
