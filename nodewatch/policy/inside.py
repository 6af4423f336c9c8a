"""Jobs that may go on inside their allocation when a node of it fails (`spares=K`): who is told, and how long it is waited.

The job's own supervisor starts its step again on the nodes that are left; nobody asks Slurm. It is told by its agents which
nodes are bad. What shows that it goes on are heartbeats: steps on other nodes, after the fault. Without them, and within
their time, the job is put back into the queue as any other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from nodewatch.model import auto_resume
from nodewatch.model.cluster import SlurmJob, Snapshot
from nodewatch.model.health import Severity
from nodewatch.model.heartbeats import Phase
from nodewatch.model.ledger import Case, Ledger, MarkedJob
from nodewatch.model.plan import Held
from nodewatch.policy import guards
from nodewatch.policy.rules import Rules

_LAG_S = 10.0
"""Agents tell of ranks every 5 s, and look every 2: a rank of which nothing new was told for so long has stood still."""
_SETTLES_S = 2.0
"""A look at the files apart from the truth: a step may be of before the fault although it is dated after it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One running job with bad nodes that it may go on without."""

    job: MarkedJob
    nodes: tuple[str, ...]
    """Those that are bad, sorted."""
    since: float
    """When the last of them became known."""
    least: int
    """On so many nodes at least the job can go on."""
    beyond: str = ""
    """Why it cannot go on without them; empty where it may."""

    @property
    def goes_on(self) -> bool:
        """Whether it was seen to make steps without them."""
        return self.job.inside_step is not None and set(self.nodes) <= set(self.job.inside)

    @property
    def starts(self) -> bool:
        """Whether ranks were seen to start without them."""
        return set(self.nodes) <= set(self.job.inside)


def told(job: MarkedJob, seen: SlurmJob | None, cases: Iterable[Case]) -> Told | None:
    """What is to be said of `job`; None where nothing is bad, or where it does not run, or did not ask for it.

    `cases` may be of any nodes.
    """
    spares = spares_of(job)
    if not spares or seen is None or not seen.is_running or job.ended_at is not None or seen.het_job_id is not None:
        return None
    bad = [case for case in cases if case.node in job.nodes and case.is_out and case.severity >= Severity.FATAL]
    nodes = tuple(sorted({*job.inside, *(case.node for case in bad)}))
    if not nodes:
        return None
    beyond = ""
    if len(nodes) > spares:
        beyond = f"{len(nodes)} of its nodes failed and it has {spares} to spare"
    elif any(case.node == job.nodes[0] and case.family == "node" for case in bad):
        # Slurm starts the batch script on the first node of an allocation.
        beyond = f"{job.nodes[0]} was lost, and its batch script with it"
    since = max((case.admitted_at or case.step_at for case in bad), default=0.0)
    return Told(job=job, nodes=nodes, since=since, least=len(job.nodes) - spares, beyond=beyond)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One rank as its heartbeats show it. Times are seconds since the epoch, by the controller's clock."""

    node: str
    still_since: float
    """When its step or phase changed last."""
    stepped_at: float | None
    """When it made a step last, None before its second one."""
    step: int
    phase: Phase


@dataclass(frozen=True, slots=True, kw_only=True)
class Sign:
    """Ranks start, or make steps, without the bad nodes; `step` is None while they start."""

    step: int | None


def sign(known: Told, ranks: Sequence[Seen]) -> Sign | None:
    """What the ranks of the job show; None while nothing tells that it does without its bad nodes.

    Ranks that wait for each other make a step or two after a fault, and agents tell of them at different times: steps count
    from some seconds after the fault, and only while no rank on a bad node makes them as well. A program of whose ranks too
    few tell proves nothing: the rank that is not heard may be on the bad node.
    """
    others = [rank for rank in ranks if rank.node not in known.nodes]
    if len({rank.node for rank in others}) < known.least:
        return None
    stepped = [rank.stepped_at for rank in others if rank.phase is Phase.STEP and rank.stepped_at is not None]
    last = max(stepped, default=float("-inf"))
    lives = any(rank.still_since > last - _LAG_S for rank in ranks if rank.node in known.nodes)
    if last > known.since + _SETTLES_S and not lives:
        return Sign(step=max(rank.step for rank in others))
    if any(rank.phase is Phase.STARTING and rank.still_since > known.since for rank in others):
        return Sign(step=None)
    return None


def all_told(snapshot: Snapshot, ledger: Ledger, rules: Rules) -> Iterator[Told]:
    """Every job of which anything is to be said."""
    if guards.observing(rules) is not None:
        return
    cases = [case for case in ledger.open_cases if case.is_out and case.severity >= Severity.FATAL]
    bad = {case.node for case in cases}
    for job_id in sorted(ledger.jobs.keys() & snapshot.jobs.keys()):
        job = ledger.jobs[job_id]
        if job.inside or not bad.isdisjoint(job.nodes):
            known = told(job, snapshot.jobs[job_id], cases)
            if known is not None:
                yield known


def requests(found: Iterable[Told]) -> Mapping[str, tuple[dict[str, object], ...]]:
    """What agents are asked, by node: every node of the job is told, since any may bear its batch script."""
    asked: dict[str, tuple[dict[str, object], ...]] = {}
    for each in found:
        request: dict[str, object] = {"kind": "bad_nodes", "job": each.job.job_id, "nodes": list(each.nodes)}
        for node in each.job.nodes:
            asked[node] = (*asked.get(node, ()), request)
    return asked


def waited_for(job: MarkedJob, seen: SlurmJob, cases: Sequence[Case], rules: Rules, now: float) -> Held | None:
    """Why a job with a bad node is not put back into the queue now; None where it is."""
    known = told(job, seen, cases)
    if known is None or known.beyond:
        return None
    without = " and ".join(known.nodes)
    if known.goes_on:
        return Held(subject=f"job {job.job_id}", why=f"it goes on without {without} inside its allocation")
    limit_s = rules.inside_start_s if known.starts else rules.inside_wait_s
    if now >= known.since + limit_s:
        return None
    doing = "it starts again" if known.starts else "its supervisor is told"
    # The limit and not what is left of it: each second would be news.
    otherwise = f"without a step within {limit_s:.0f} s it is put back into the queue"
    why = f"{without} failed and it has nodes to spare: {doing}; {otherwise}"
    return Held(subject=f"job {job.job_id}", why=why)


def spares_of(job: MarkedJob) -> int:
    """How many of its nodes the job can do without."""
    try:
        return auto_resume.parse(job.budget).spares
    except ValueError:
        # Anyone can write the mark into a job's Extra field.
        return 0
