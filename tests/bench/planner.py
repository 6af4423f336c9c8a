"""What one tick of the planner costs, by the number of nodes: a curve and its slope.

A cluster at work: a job for each five nodes, most of them marked, as many warm spares as one node in a hundred, one node in
five hundred under repair, and the memory of a busy year (closed cases and actions up to the limits of what is remembered).
Beside it the worst moment: every tenth node reports the same fault at once. The planner is pure: its processor time is all.
`walk` is the cost of a bare loop that reads one field of each node and agent: its slope is that of the machine's memory, since
what fits into the processor's cache at 10,000 nodes does not at 100,000.

    python tests/bench/planner.py [--sizes 1000,3000] [--runs 5]
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import math
import statistics
import sys
import time
from collections.abc import Mapping
from typing import Any

from nodewatch.model import actions as act
from nodewatch.model.cluster import SPARE_REASON, AgentView, Instance, SlurmJob, SlurmNode, Snapshot
from nodewatch.model.health import Finding, NodeState, Remedy, Severity, StandingFinding, Verdict
from nodewatch.model.ledger import ActionRecord, ActionState, Case, KnownAgent, Ledger, MarkedJob, Rung, Step, Tested
from nodewatch.model.plan import Plan
from nodewatch.policy.draft import LIMITS
from nodewatch.policy.plan import plan
from nodewatch.policy.rules import Group, Rules

SIZES = (1_000, 3_000, 10_000, 30_000, 100_000)
NOW = 1_700_000_000.0
_NODES_OF_JOB = 4
_WELL = Verdict(state=NodeState.HEALTHY, since=NOW - 86400.0)


def planner(sizes: tuple[int, ...] = SIZES, runs: int = 5) -> dict[str, Any]:
    """Seconds of one tick by size, quiet and in a storm, and the exponent of the growth between the last sizes."""
    rows = []
    for size in sizes:
        row = {"nodes": size, "jobs": size // 5}
        for name, share in (("quiet", 0.0), ("storm", 0.1)):
            rules, ledger, snapshot = cluster(size, faulty_share=share)
            # Python's collector passes over the whole cluster's objects now and then, and would bill it to any tick: it doubles
            # the figure at 100,000 nodes.
            gc.collect()
            gc.freeze()
            row[f"{name}_s"] = round(_seconds(snapshot, ledger, rules, runs), 4)
            if not share:
                row["walk_s"] = round(_walk_s(snapshot, runs), 6)
            # The tick after a storm broke out: all its cases are open by then.
            opened = plan(snapshot, ledger, rules, NOW)
            if share:
                later = dataclasses.replace(ledger, cases={**ledger.cases, **{c.case_id: c for c in opened.cases}})
                row["storm_goes_on_s"] = round(_seconds(snapshot, later, rules, runs), 4)
            gc.unfreeze()
        rows.append(row)
        print(json.dumps(row), flush=True)
    slopes = {name: slope(rows, f"{name}_s") for name in ("quiet", "storm", "storm_goes_on", "walk")}
    return {"rows": rows, "slope": slopes}


def slope(rows: list[dict[str, Any]], column: str) -> float | None:
    """The exponent of the growth over the three largest sizes: 1 is linear. None for fewer than two."""
    last = rows[-3:]
    if len(last) < 2:
        return None
    points = [(math.log(row["nodes"]), math.log(max(row[column], 1e-6))) for row in last]
    return round(statistics.linear_regression([x for x, _ in points], [y for _, y in points]).slope, 2)


def cluster(size: int, *, faulty_share: float = 0.0) -> tuple[Rules, Ledger, Snapshot]:
    """A cluster of `size` nodes at work, and what its controller remembers."""
    names = [f"n{index:06d}" for index in range(size)]
    halves = {"left": names[: size // 2], "right": names[size // 2 :]}
    rules = Rules(
        mode="act",
        max_out=size // 100,
        groups=tuple(
            Group(
                name=name,
                nodes=tuple(nodes),
                partition="train",
                spares=len(nodes) // 100,
                launch_template="t",
                instance_type="p5.48xlarge",
            )
            for name, nodes in halves.items()
        ),
    )
    jobs, marked, holder = _jobs(names, size // 5)
    spare = {name for name in names if name not in holder and int(name[1:]) % 25 == 24}
    nodes = {name: _node(name, holder, spare) for name in names}
    instances = {f"i-{name}": Instance(instance_id=f"i-{name}", state="running", node=name) for name in names}
    faulty = set(names[:: round(1 / faulty_share)]) if faulty_share else set()
    agents = {name: _agent(name, name in faulty) for name in names}
    return (
        rules,
        _ledger(names, marked),
        Snapshot(taken_at=NOW, nodes=nodes, jobs=jobs, instances=instances, agents=agents),
    )


def _jobs(names: list[str], count: int) -> tuple[dict[int, SlurmJob], dict[int, MarkedJob], dict[str, int]]:
    jobs: dict[int, SlurmJob] = {}
    marked: dict[int, MarkedJob] = {}
    holder: dict[str, int] = {}
    for number in range(1, count + 1):
        held = tuple(names[(number - 1) * 5 : (number - 1) * 5 + _NODES_OF_JOB])
        started = NOW - 3600.0
        jobs[number] = SlurmJob(
            job_id=number, states=frozenset({"RUNNING"}), nodes=held, partition="train", started_at=started
        )
        holder.update(dict.fromkeys(held, number))
        if len(marked) < LIMITS.jobs:
            marked[number] = MarkedJob(job_id=number, budget="3", restart_count=0, nodes=held, started_at=started)
    return jobs, marked, holder


def _node(name: str, holder: Mapping[str, int], spare: set[str]) -> SlurmNode:
    states = {"ALLOCATED"} if name in holder else {"IDLE", "DRAIN"} if name in spare else {"IDLE"}
    reason = SPARE_REASON if name in spare else ""
    return SlurmNode(name=name, address=name, states=frozenset(states), partitions=("train",), reason=reason)


def _agent(name: str, is_faulty: bool) -> AgentView:
    verdict = _WELL
    if is_faulty:
        finding = Finding(fault="gpu.lost", subject="GPU-0", severity=Severity.FATAL, remedy=Remedy.REPLACE)
        standing = StandingFinding(finding=finding, first_at=NOW - 1.0, last_at=NOW)
        verdict = Verdict(state=NodeState.FAILED, since=NOW - 1.0, findings=(standing,))
    return AgentView(node=name, heard_at=NOW - 1.0, boot_id=f"b-{name}", instance_id=f"i-{name}", verdict=verdict)


def _ledger(names: list[str], marked: dict[int, MarkedJob]) -> Ledger:
    cases = {}
    for number in range(LIMITS.closed_cases):
        case = _case(names[number * 7 % len(names)], number, Step.CLOSED, NOW - 60.0 * number)
        cases[case.case_id] = case
    for number, name in enumerate(names[4::500]):
        case = _case(name, 10**6 + number, Step.WAITING_FOR_HUMAN, NOW - 3600.0 - 700.0 * number)
        cases[case.case_id] = case
    actions = {}
    for number in range(LIMITS.actions):
        drain = act.Drain(key=f"old{number}:replace:drain", node=names[number % len(names)], reason="nodewatch: x")
        actions[drain.key] = ActionRecord(action=drain, state=ActionState.DONE, at=NOW - 86400.0, tries=1)
    tested = {name: Tested(instance_id=f"i-{name}", at=NOW - 86400.0, passed=True) for name in names}
    agents = {name: KnownAgent(boot_id=f"b-{name}", instance_id=f"i-{name}", heard_at=NOW - 1.0) for name in names}
    return Ledger(cases=cases, jobs=marked, actions=actions, tested=tested, agents=agents)


def _case(node: str, number: int, step: Step, at: float) -> Case:
    return Case(
        case_id=f"{node}.disk.{number}",
        node=node,
        family="disk",
        fault="disk.failing",
        subject="nvme0",
        severity=Severity.DEGRADED,
        rung=Rung.HUMAN,
        step=step,
        opened_at=at,
        step_at=at,
        old_instance=f"i-{node}",
    )


def _seconds(snapshot: Snapshot, ledger: Ledger, rules: Rules, runs: int) -> float:
    """The median time of a tick: a fresh snapshot, as each tick reads one, and the plan."""
    times = []
    for _ in range(runs):
        began = time.process_time()
        fresh = dataclasses.replace(snapshot)
        decided = plan(fresh, ledger, rules, NOW)
        times.append(time.process_time() - began)
        assert isinstance(decided, Plan)
    return statistics.median(times)


def _walk_s(snapshot: Snapshot, runs: int) -> float:
    """The median time of a loop over all nodes and agents that does nothing."""
    times = []
    for _ in range(runs):
        began = time.process_time()
        count = 0
        for node in snapshot.nodes.values():
            count += node.states is None
        for view in snapshot.agents.values():
            count += view.verdict is None
        times.append(time.process_time() - began)
        assert count == 0
    return statistics.median(times)


def main() -> int:
    """Print the curve; the exit code is always 0: nothing here asserts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="numbers of nodes with commas between them")
    parser.add_argument("--runs", type=int, default=5, help="ticks of which the median is taken")
    options = parser.parse_args()
    figures = planner(tuple(int(size) for size in options.sizes.split(",")), options.runs)
    print(json.dumps({"slope": figures["slope"]}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
