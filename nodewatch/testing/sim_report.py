"""What a simulation counts, what must hold in it, and how its report reads."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nodewatch.model.ledger import Ledger
from nodewatch.model.plan import Judgement
from nodewatch.policy.job_scene import limit_of
from nodewatch.policy.verbs import asked
from nodewatch.policy.wishes import is_forced
from nodewatch.testing.sim_faults import FaultKind

if TYPE_CHECKING:
    from nodewatch.testing.simulation import Simulation

_MOST_KEPT = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The outcome: figures by name, and each break of an invariant as a sentence."""

    figures: dict[str, Any]
    broken: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {**self.figures, "invariants_broken": list(self.broken)}


@dataclass(slots=True, kw_only=True)
class Tally:
    """Counters of one simulation."""

    nodes: int
    seconds: float
    unserving_node_s: float = 0.0
    busy_node_s: float = 0.0
    actions: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    judgements: Counter[str] = field(default_factory=Counter)
    storms: int = 0
    storm_reports: int = 0
    operator_drains: int = 0
    humans: int = 0
    failed_jobs: int = 0
    requeued_running: int = 0
    ticks: int = 0
    tick_s: list[float] = field(default_factory=list)
    jobs_back_s: list[float] = field(default_factory=list)
    machines_back_s: list[float] = field(default_factory=list)

    def planned(self, seconds: float, *, is_first: bool) -> None:
        """One call of the planner took so long, in seconds of processor time."""
        self.ticks += is_first
        self.tick_s.append(seconds)

    def struck(self, kind: FaultKind, storm: int) -> None:
        """A fault came over a node."""
        if storm >= 0:
            self.storm_reports += 1
        else:
            self.faults[kind.fault] += 1

    def judged(self, judgement: Judgement) -> None:
        """A marked job's end was judged."""
        self.judgements[judgement.cause.value + ("" if judgement.restarts else ", not started again")] += 1

    def job_back(self, seconds: float) -> None:
        """A job runs again so long after the fault."""
        self.jobs_back_s.append(seconds)

    def machine_back(self, seconds: float) -> None:
        """A node is back in service so long after the fault."""
        self.machines_back_s.append(seconds)

    def report(self, ledger: Ledger, invariants: Invariants, *, wall_s: float, cpu_s: float) -> Report:
        """All of it."""
        total = self.nodes * self.seconds
        open_cases = Counter(case.step.value for case in ledger.open_cases)
        figures = {
            "nodes": self.nodes,
            "days": round(self.seconds / 86400, 2),
            "availability": round(1 - self.unserving_node_s / total, 6),
            "utilisation": round(self.busy_node_s / total, 4),
            "faults": dict(sorted(self.faults.items())),
            "storms": self.storms,
            "storm_reports": self.storm_reports,
            "operator_drains": self.operator_drains,
            "jobs_failed": self.failed_jobs,
            "jobs_requeued": self.actions["requeue"],
            "jobs_requeued_by_slurm": max(0, self.requeued_running - self.actions["requeue"]),
            "judgements": dict(sorted(self.judgements.items())),
            "replacements": self.actions["launch"],
            "actions": dict(sorted(self.actions.items())),
            "repaired_by_hand": self.humans,
            "job_back_s": quantiles(self.jobs_back_s),
            "machine_back_s": quantiles(self.machines_back_s),
            "open_cases": dict(sorted(open_cases.items())),
            "nodes_wrongly_touched": len(invariants.wrongly_touched),
            "storm_nodes_touched_before_it_showed": sum(len(nodes) for nodes in invariants.touched_in_storm.values()),
            "ticks": self.ticks,
            "plan_s": {**quantiles(self.tick_s, digits=5), "sum": round(sum(self.tick_s), 1)},
            "wall_s": round(wall_s, 1),
            "cpu_s": round(cpu_s, 1),
        }
        return Report(figures=figures, broken=tuple(invariants.sentences))


class Invariants:
    """The rules of docs/flow.md, against what the simulation knows and the controller does not."""

    def __init__(self, simulation: Simulation) -> None:
        self._sim = simulation
        self.sentences: list[str] = []
        self.wrongly_touched: set[str] = set()
        self.touched_in_storm: dict[int, set[str]] = {}

    def broken(self, what: str) -> None:
        """Write one break down, the first few in full."""
        if len(self.sentences) < _MOST_KEPT:
            self.sentences.append(f"day {(self._sim.now - 1_700_000_000.0) / 86400:.2f}: {what}")

    def at_touch(self, verb: str, node: str) -> None:
        """The controller is about to change a node or its machine."""
        if verb == "resume":
            return
        sim = self._sim
        known = sim.slurm.node_table[node]
        cases = [case for case in sim.ledger.open_cases_of(node) if case.is_admitted]
        is_launched = any(case.new_instance for case in cases)
        if known.is_foreign and asked(known) is None and not (is_launched and verb in ("terminate", "address")):
            self._wrong(node, f"{verb} {node}, which somebody else took out of service ({known.reason})")
        if not cases:
            self._wrong(node, f"{verb} {node} without a case")
            return
        case = cases[0]
        storms = sim.machines.had_trouble(node, case.opened_at)
        if not storms and not is_launched and not sim.machines.of(node).is_bad and case.attempt == 1 and not case.tried:
            self._wrong(node, f"{verb} {node}, which had nothing ({case.case_id} {case.fault})")
        if storms and -1 not in storms:
            for storm in storms:
                touched = self.touched_in_storm.setdefault(storm, set())
                touched.add(node)
                if len(touched) >= sim.rules.storm_nodes:
                    self._wrong(node, f"{verb} {node} in a storm that showed on {sim.rules.storm_nodes} nodes before")
        busy = sim.slurm.on.get(node)
        is_lost = case.family == "node" or is_forced(case)
        if verb in ("terminate", "reboot") and busy is not None and not is_lost:
            self._wrong(node, f"{verb} {node} under job {busy}")
        if verb == "launch" and len([i for i in sim.ec2.alive(node) if i]) > 1:
            self.broken(f"a third machine was launched for {node}")

    def after_tick(self) -> None:
        """What must hold between ticks."""
        sim = self._sim
        out = {case.node for case in sim.ledger.open_cases if case.is_out and not is_forced(case)}
        if len(out) > sim.rules.max_out * max(1, len(sim.rules.groups)):
            self.broken(f"{len(out)} nodes are out, the limit is {sim.rules.max_out} a group")

    def after_judgement(self, job_id: int) -> None:
        """A judgement is what counts a restart of a job."""
        job = self._sim.ledger.jobs.get(job_id)
        if job is not None and job.requeues > limit_of(job, self._sim.rules):
            self.broken(f"job {job.job_id} was started again {job.requeues} times")

    def _wrong(self, node: str, what: str) -> None:
        self.wrongly_touched.add(node)
        self.broken(what)


def quantiles(values: Sequence[float], digits: int = 1) -> dict[str, float]:
    """Count, median, the 90th and 99th of a hundred, and the largest."""
    if not values:
        return {"count": 0}
    ordered = sorted(values)

    def at(share: float) -> float:
        return round(ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)], digits)

    return {
        "count": len(ordered),
        "median": round(statistics.median(ordered), digits),
        "p90": at(0.9),
        "p99": at(0.99),
        "max": round(ordered[-1], digits),
    }
