"""Weeks of a large cluster in virtual time: the real planner, the real fold and the real effects on simulated machines.

Nothing is looked at while nothing can change: the planner is level-triggered, so a tick runs when something is reported and
when something that it waits for falls due. An agent that lives is heard all along. The invariants of docs/flow.md are checked
at each touch and after each tick; what breaks one stands in the report.
"""

from __future__ import annotations

import dataclasses
import gc
import heapq
import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from nodewatch.effects.perform import perform
from nodewatch.errors import CapacityError, NodewatchError
from nodewatch.model import actions as act
from nodewatch.model.cluster import SPARE_REASON, AgentView, Instance, SlurmJob, Snapshot
from nodewatch.model.health import Finding, NodeState, StandingFinding, Verdict, remedy_of, severity_of, state_of
from nodewatch.model.ledger import Case, Ledger, Step
from nodewatch.model.plan import Plan
from nodewatch.model.records import Record
from nodewatch.policy.budgets import is_serving
from nodewatch.policy.draft import Draft
from nodewatch.policy.fold import case_to_json, fold_into
from nodewatch.policy.plan import plan, validation_requests
from nodewatch.policy.rules import Group, Rules
from nodewatch.testing.ec2 import FakeEc2
from nodewatch.testing.sim_cluster import SimSlurm
from nodewatch.testing.sim_faults import FaultKind, FaultMix, Storm
from nodewatch.testing.sim_report import Invariants, Report, Tally

_DAY_S = 86400.0
_START = 1_700_000_000.0
_HEARD = 1e15
"""When a living agent was heard: it always was just now."""
_MOST_ROUNDS = 12
_LOOK_AT_LEAST_S = 1800.0
"""The whole cluster is looked at so often, whether something happened or not."""
_SIZES = ((1, 55), (2, 15), (4, 12), (8, 10), (16, 5), (32, 2.5), (64, 0.5))
"""Nodes of a job and how many of a hundred jobs are so large; most are small (RSC, arXiv 2410.21680). Four on average."""


@dataclass(slots=True, kw_only=True)
class Trouble:
    """A fault that a node has. `storm` numbers the storm that it is part of, -1 for one of its own."""

    kind: FaultKind
    subject: str
    at: float
    storm: int = -1


@dataclass(slots=True, kw_only=True)
class Machine:
    """The hardware that bears a node's name now."""

    instance_id: str
    boot: int = 0
    is_lemon: bool = False
    is_bad: bool = False
    """Its deep checks fail."""
    is_alive: bool = True
    troubles: list[Trouble] = field(default_factory=list)


class Simulation:
    """`Simulation(nodes=10000, days=30, seed=1).run()` gives the report."""

    def __init__(
        self,
        *,
        nodes: int,
        days: float,
        seed: int,
        rules: Rules | None = None,
        mix: FaultMix | None = None,
        progress: Callable[[float, Tally], None] = lambda _share, _tally: None,
    ) -> None:
        """`rules` without groups are those of one group of all nodes. `progress` is told now and then."""
        self.now = _START
        self._end = _START + days * _DAY_S
        self._random = random.Random(seed)
        self._mix = mix or FaultMix()
        self._progress = progress
        self.rules, names = _populated(rules, nodes)
        self._names = names
        self.ledger = Ledger()
        self.tally = Tally(nodes=len(names), seconds=days * _DAY_S)
        self.slurm = SimSlurm(lambda: self.now, self._touched)
        self.ec2 = FakeEc2()
        self.ec2.watch = lambda verb, node: self._touched(verb, node, "")
        self._machines: dict[str, Machine] = {}
        self._agents: dict[str, AgentView] = {}
        self._instances: Mapping[str, Instance] = {}
        self._silent: set[str] = set()
        self._past: dict[str, list[tuple[float, float, int]]] = {}
        """By node, (begin, end, storm) of the troubles that are over."""
        self._records: list[Record] = []
        # Kept: what has to be forgotten is found by an index that would be built anew with each.
        self._draft = Draft(self.ledger)
        self._number = 0
        self._queue: list[tuple[float, int, Callable[[], bool]]] = []
        self._sequence = 0
        self._alarm = 0
        self._marks: dict[int, str | None] = {}
        self._left_s: dict[int, float] = {}
        self._hit_at: dict[int, float] = {}
        self._cured: set[str] = set()
        self._asked: set[str] = set()
        self._unserving: set[str] = set()
        self._counted_at = self.now
        self._next_job = 1
        self.invariants = Invariants(self)
        self._fill()

    def run(self) -> Report:
        """Let the time pass and say what came of it."""
        # The cluster's objects live to the end: to search them for cycles again and again takes half the time.
        gc.collect()
        gc.freeze()
        try:
            return self._run()
        finally:
            gc.unfreeze()

    def _run(self) -> Report:
        began, busy, shown = time.monotonic(), time.process_time(), time.monotonic()
        self._tick()
        while self._queue and self._queue[0][0] < self._end:
            at = self._queue[0][0]
            self._count_time(at)
            self.now = at
            is_news = False
            # Everything within one second is one tick of the real controller.
            while self._queue and self._queue[0][0] <= at:
                is_news |= heapq.heappop(self._queue)[2]()
            self._start_jobs()
            if is_news:
                self._tick()
            if time.monotonic() - shown > 1.0:
                shown = time.monotonic()
                self._progress((self.now - _START) / (self._end - _START), self.tally)
        self._count_time(self._end)
        return self.tally.report(
            self.ledger, self.invariants, wall_s=time.monotonic() - began, cpu_s=time.process_time() - busy
        )

    def machine(self, node: str) -> Machine:
        """The machine that bears `node` now."""
        return self._machines[node]

    def had_trouble(self, node: str, since: float) -> set[int]:
        """The storms (-1: none) of actionable troubles that `node` has, or had at `since` or later; empty when it was well."""
        found = {t.storm for t in self._machines[node].troubles if t.kind.is_actionable}
        return found | {storm for _, end, storm in self._past.get(node, ()) if end >= since}

    # -- the controller -----------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        for round_number in range(_MOST_ROUNDS):
            self._fold()
            snapshot = Snapshot(
                taken_at=self.now,
                nodes=self.slurm.node_table,
                jobs=self.slurm.job_table,
                instances=self._instances,
                agents=self._agents,
                unreachable=frozenset(self._silent),
            )
            began = time.process_time()
            decided = plan(snapshot, self.ledger, self.rules, self.now)
            self.tally.planned(time.process_time() - began, is_first=round_number == 0)
            self._decided(decided)
            for action in decided.actions:
                self._carry_out(action)
            self._ended_by_us()
            self._start_jobs()
            if not (decided.actions or decided.cases or decided.judgements):
                break
        else:
            self.invariants.broken("the planner did not come to rest")
        self._fold()
        self.invariants.after_tick()
        self._wake_for_what_waits()

    def _decided(self, decided: Plan) -> None:
        for case in decided.cases:
            self._note("case", {"case": case_to_json(case)})
        for judgement in decided.judgements:
            self._note("judged", {**dataclasses.asdict(judgement), "cause": judgement.cause.value})
            self.tally.judged(judgement)
        self._fold()
        for judgement in decided.judgements:
            self.invariants.after_judgement(judgement.job_id)
        for case in decided.cases:
            self._case_moved(case)

    def _carry_out(self, action: act.Action) -> None:
        self._note("intended", {"action": act.to_json(action)})
        word = act.word_of(action)
        try:
            result = perform(action, self.slurm, self.ec2)
        except NodewatchError as error:
            is_capacity = isinstance(error, CapacityError)
            failed = {"key": action.key, "error": str(error), "is_capacity": is_capacity}
            self._note("failed", {**failed, "code": getattr(error, "code", "") or ""})
            self.tally.actions[f"{word} refused"] += 1
            return
        self._note("done", {"key": action.key, "action": act.to_json(action), "result": result})
        self.tally.actions[word] += 1
        node = str(getattr(action, "node", ""))
        if isinstance(action, act.Launch):
            instance_id = str(result["instance_id"])
            self._instances = self.ec2.instances()
            self._later(self._around(self._mix.boot_s), lambda: self._boots(node, instance_id))
        elif word in ("terminate", "quarantine"):
            self._instances = self.ec2.instances()
            self._goes_silent(node, getattr(action, "instance_id", ""))
        elif word in ("reboot", "reboot_instance"):
            self._reboots(node)
        elif isinstance(action, act.ResetGpu):
            self._later(60.0, lambda: self._answers_reset(node, action.key))
        elif isinstance(action, act.DeepCheck):
            self._validates(node, action.key, action.suite)

    def _case_moved(self, case: Case) -> None:
        if case.step is Step.VALIDATING:
            for key, suite in validation_requests(case.node, self.ledger, self.rules, self.now):
                self._validates(case.node, key, suite)
        elif case.step is Step.WAITING_FOR_HUMAN:
            self._later(self._around(self._mix.human_s), lambda: self._human_repairs(case.node, case.case_id))
        elif case.step is Step.WATCHING and case.case_id not in self._cured:
            self._cured.add(case.case_id)
            self.tally.machine_back(self.now - (case.fault_at or case.opened_at))

    def _wake_for_what_waits(self) -> None:
        """A tick for the earliest instant at which the planner itself may decide otherwise."""
        due = [self.now + _LOOK_AT_LEAST_S]
        for case in self.ledger.open_cases:
            due += self._due_of(case)
        for job_id in self.slurm.pending:
            known = self.ledger.jobs.get(job_id)
            if known is not None and (self.slurm.job_table[job_id].begins_at or 0.0) > self.now:
                due.append(self.now + 2.0)
        at = min(moment for moment in due if moment > self.now)
        # Each tick sets the alarm anew; one set before goes off unheard.
        self._alarm += 1
        number = self._alarm
        self._at(at, lambda: number == self._alarm)

    def _due_of(self, case: Case) -> Iterator[float]:
        rules, age = self.rules, self.now - case.step_at
        if case.step is Step.HELD:
            waits = (rules.lost_settle_s, rules.settle_s, rules.shared_settle_s)
            yield from (case.opened_at + wait for wait in waits)
        elif case.step is Step.WATCHING:
            yield case.step_at + rules.healthy_delay_s
        elif case.step in (Step.DRAINING, Step.WAITING_FOR_HUMAN):
            if rules.degraded_wait_s:
                yield case.step_at + rules.degraded_wait_s + 1.0
        else:
            limits = {Step.BOOTING: rules.launch_timeout_s, Step.REBOOTING: rules.reboot_timeout_s}
            yield case.step_at + limits.get(case.step, rules.reset_timeout_s) + 1.0
        # For everything else that passes with time, such as waits between tries: twice as old each time.
        ramp = 2.0 if case.step is Step.LAUNCHING else 60.0
        yield self.now + min(max(ramp, age), 600.0)

    # -- what happens to machines ---------------------------------------------------------------------------------------

    def _strike(self, node: str, kind: FaultKind, storm: int = -1) -> bool:
        machine = self._machines[node]
        if kind.fault == "program":
            job_id = self.slurm.on.get(node)
            return job_id is not None and self._job_fails(job_id, self.slurm.job_table[job_id].restart_count)
        if not machine.is_alive or any(t.kind.fault == kind.fault for t in machine.troubles):
            return False
        trouble = Trouble(kind=kind, subject=f"GPU-{node}-{machine.instance_id}", at=self.now, storm=storm)
        machine.troubles.append(trouble)
        self.tally.struck(kind, storm)
        if kind.fault in ("node.lost", "switch"):
            if kind.fault == "switch":
                self._later(kind.lasts_s, lambda: self._is_back(node, trouble))
            self._goes_silent(node, machine.instance_id)
            return False
        if kind.lasts_s:
            self._later(kind.lasts_s, lambda: self._passes(node, trouble))
        job_id = self.slurm.on.get(node)
        if job_id is not None and severity_of(kind.severity).word == "fatal":
            self._hit_at.setdefault(job_id, self.now)
            if self._random.random() < kind.fails_job:
                restart = self.slurm.job_table[job_id].restart_count
                self._later(self._random.uniform(1.0, 20.0), lambda: self._job_fails(job_id, restart))
        self._speaks(node)
        return True

    def _goes_silent(self, node: str, instance_id: str) -> None:
        machine = self._machines[node]
        if not machine.is_alive or instance_id not in ("", machine.instance_id):
            return
        machine.is_alive = False
        self.slurm.set_responding(node, False)
        self._silent.add(node)
        job_id = self.slurm.on.get(node)
        if job_id is not None:
            self._hit_at.setdefault(job_id, self.now)
        self._agents[node] = dataclasses.replace(self._agents[node], heard_at=self.now, validating="")
        self._later(self.rules.agent_silence_s + 0.1, lambda: not self._machines[node].is_alive)

    def _is_back(self, node: str, trouble: Trouble) -> bool:
        """The network answers again: the same machine in the same boot."""
        machine = self._machines[node]
        if trouble not in machine.troubles:
            return False
        self._over(node, trouble)
        self._alive_again(node)
        return True

    def _passes(self, node: str, trouble: Trouble) -> bool:
        if trouble not in self._machines[node].troubles:
            return False
        self._over(node, trouble)
        if self._machines[node].is_alive:
            self._speaks(node)
        self._later(self.rules.healthy_delay_s + 1.0, lambda: True)
        return trouble.kind.is_actionable

    def _over(self, node: str, trouble: Trouble) -> None:
        self._machines[node].troubles.remove(trouble)
        if trouble.kind.is_actionable:
            self._past.setdefault(node, []).append((trouble.at, self.now, trouble.storm))

    def _alive_again(self, node: str) -> None:
        self._machines[node].is_alive = True
        self._silent.discard(node)
        self.slurm.set_responding(node, True)
        self._speaks(node)

    def _speaks(self, node: str) -> None:
        """The agent's verdict changed, or its machine did."""
        machine = self._machines[node]
        findings = tuple(
            StandingFinding(
                finding=Finding(
                    fault=t.kind.fault,
                    subject=t.subject,
                    severity=severity_of(t.kind.severity),
                    remedy=remedy_of(t.kind.remedy),
                ),
                first_at=t.at,
                last_at=self.now,
            )
            for t in machine.troubles
            if t.kind.fault not in ("node.lost", "switch")
        )
        boot_id = f"{machine.instance_id}-{machine.boot}"
        verdict = Verdict(state=state_of(findings, ()), since=self.now, findings=findings)
        before = self._agents.get(node)
        self._agents[node] = AgentView(
            node=node,
            heard_at=_HEARD,
            boot_id=boot_id,
            instance_id=machine.instance_id,
            verdict=verdict,
            validating=before.validating if before is not None and before.boot_id == boot_id else "",
        )
        self._note(
            "verdict",
            {"node": node, "boot_id": boot_id, "instance_id": machine.instance_id, "verdict": verdict.to_json()},
        )

    def _boots(self, node: str, instance_id: str) -> bool:
        if not self._instances[instance_id].is_alive:
            return False
        for trouble in list(self._machines[node].troubles):
            self._over(node, trouble)
        is_bad = self._random.random() < self._mix.bad_replacements
        self._machines[node] = Machine(instance_id=instance_id, is_bad=is_bad)
        self._alive_again(node)
        return True

    def _reboots(self, node: str) -> None:
        machine = self._machines[node]
        self._goes_silent(node, machine.instance_id)
        self._later(self._around(self._mix.reboot_s), lambda: self._is_up(node, machine))

    def _is_up(self, node: str, machine: Machine) -> bool:
        if machine is not self._machines[node]:
            return False
        machine.boot += 1
        for trouble in list(machine.troubles):
            if trouble.kind.fault == "switch" or self._random.random() < trouble.kind.reboot_cures:
                self._over(node, trouble)
        self._alive_again(node)
        return True

    def _validates(self, node: str, key: str, suite: str) -> None:
        if key in self._asked:
            return
        self._asked.add(key)
        machine = self._machines[node]
        self._agents[node] = dataclasses.replace(self._agents[node], validating=key)
        self._later(self._around(self._mix.deep_s), lambda: self._answers(node, machine, key, suite))

    def _answers(self, node: str, machine: Machine, key: str, suite: str) -> bool:
        if machine is not self._machines[node] or not machine.is_alive:
            return False
        passed = not machine.is_bad and not any(t.kind.is_actionable for t in machine.troubles)
        told = {"key": key, "suite": suite, "passed": passed, "gave_way_to": ""}
        boot_id = f"{machine.instance_id}-{machine.boot}"
        self._note("validated", {**told, "node": node, "instance_id": machine.instance_id, "boot_id": boot_id})
        self._agents[node] = dataclasses.replace(self._agents[node], validating="")
        return True

    def _answers_reset(self, node: str, key: str) -> bool:
        machine = self._machines[node]
        if not machine.is_alive:
            return False
        for trouble in list(machine.troubles):
            if self._random.random() < trouble.kind.reset_cures:
                self._over(node, trouble)
        self._note("gpu_reset", {"node": node, "key": key, "ok": True, "said": "the GPUs were reset"})
        self._speaks(node)
        return True

    def _human_repairs(self, node: str, case_id: str) -> bool:
        """Somebody looked at it, mended it and returned it to service."""
        case = self.ledger.cases.get(case_id)
        if case is None or case.step is not Step.WAITING_FOR_HUMAN:
            return False
        machine = self._machines[node]
        for trouble in list(machine.troubles):
            self._over(node, trouble)
        machine.is_bad = machine.is_lemon = False
        machine.boot += 1
        self._alive_again(node)
        self.slurm.operator(node, "")
        self.tally.humans += 1
        return True

    def _operator_drains(self, node: str) -> bool:
        known = self.slurm.node_table[node]
        if not known.is_out and not known.is_down:
            self.slurm.operator(node, "replacing a cable, Ada")
            self.tally.operator_drains += 1
            self._later(self._random.uniform(3600.0, _DAY_S), lambda: self._operator_returns(node))
        return False

    def _operator_returns(self, node: str) -> bool:
        if self.slurm.node_table[node].reason == "replacing a cable, Ada":
            self.slurm.operator(node, "")
        return True

    def _capacity(self, is_there: bool) -> bool:
        self.ec2.no_capacity = not is_there
        return is_there

    def _storm(self, storm: Storm, number: int) -> bool:
        count = max(self.rules.storm_nodes + 1, round(storm.share * len(self._names)))
        first = self._random.randrange(max(1, len(self._names) - count + 1))
        kind = FaultKind(
            fault=storm.fault,
            per_node_day=0.0,
            source=storm.source,
            severity=storm.severity,
            remedy=storm.remedy,
            lasts_s=storm.lasts_s,
            fails_job=0.0,
        )
        self.tally.storms += 1
        for node in self._names[first : first + count]:
            # Reports of one second are one tick.
            after = float(round(self._random.uniform(0.0, storm.spread_s)))
            self._later(after, lambda node=node: self._strike(node, kind, number))  # type: ignore[misc]
        return False

    # -- jobs -----------------------------------------------------------------------------------------------------------

    def _submit(self) -> None:
        job_id = self._next_job
        self._next_job += 1
        size = self._random.choices([n for n, _ in _SIZES], [weight for _, weight in _SIZES])[0]
        size = min(size, max(1, len(self._names) // 8))
        is_marked = self._random.random() < self._mix.marked_share
        self._marks[job_id] = "20" if is_marked else None
        self._left_s[job_id] = max(600.0, self._random.expovariate(1 / self._mix.job_s))
        job = SlurmJob(
            job_id=job_id,
            states=frozenset({"PENDING"}),
            partition=self.rules.groups[0].partition,
            user="ada",
            priority=1000,
            may_requeue=not is_marked and self._random.random() < self._mix.requeueable_share,
        )
        self.slurm.submit(job, size)

    def _start_jobs(self) -> None:
        if not self.slurm.pending:
            return
        for job in self.slurm.schedule():
            hook = {"job_id": job.job_id, "restart_count": job.restart_count, "node_names": list(job.nodes)}
            self._note("job_started", {**hook, "auto_resume": self._marks[job.job_id], "partition": job.partition})
            run = (job.job_id, job.restart_count)
            self._later(self._left_s[job.job_id], lambda run=run: self._job_ends(*run))  # type: ignore[misc]
            hit = self._hit_at.pop(job.job_id, None)
            if hit is not None and job.restart_count > 0:
                self.tally.job_back(self.now - hit)
            for node in job.nodes:
                if any(severity_of(t.kind.severity).word == "fatal" for t in self._machines[node].troubles):
                    restart = job.restart_count
                    self._later(10.0, lambda job=job, restart=restart: self._job_fails(job.job_id, restart))  # type: ignore[misc]
                    break

    def _job_ends(self, job_id: int, restart: int) -> bool:
        job = self.slurm.job_table.get(job_id)
        if job is None or not job.is_running or job.restart_count != restart:
            return False
        return self._ended(self.slurm.end(job_id, "COMPLETED"), "0:0")

    def _job_fails(self, job_id: int, restart: int) -> bool:
        job = self.slurm.job_table.get(job_id)
        if job is None or not job.is_running or job.restart_count != restart:
            return False
        self.tally.failed_jobs += 1
        self._progressed(job)
        self._ended(self.slurm.end(job_id, "FAILED", 1), "1:0")
        self._later(self.rules.attribution_wait_s + 0.5, lambda: True)
        return True

    def _ended(self, job: SlurmJob, exit_code: str) -> bool:
        """Returns whether the planner may have waited for it."""
        hook = {"job_id": job.job_id, "restart_count": job.restart_count, "exit_code": exit_code}
        self._note("job_ended", hook)
        self._later(600.0, lambda: self._forgotten(job.job_id))
        self._submit()
        return any(self.slurm.node_table[node].is_ours for node in job.nodes)

    def _forgotten(self, job_id: int) -> bool:
        self.slurm.forget(job_id)
        if job_id not in self.slurm.job_table:
            self._marks.pop(job_id, None)
            self._left_s.pop(job_id, None)
            self._hit_at.pop(job_id, None)
        return False

    def _ended_by_us(self) -> None:
        for job, exit_code in self.slurm.ended:
            self._progressed(job)
            self._hit_at.setdefault(job.job_id, self.now)
            self.tally.requeued_running += 1
            hook = {"job_id": job.job_id, "restart_count": job.restart_count, "exit_code": exit_code}
            self._note("job_ended", hook)
            if self._marks.get(job.job_id) is None:
                self._later(122.0, lambda: False)
        self.slurm.ended = []

    def _progressed(self, job: SlurmJob) -> None:
        ran_s = self.now - (job.started_at or self.now)
        self._left_s[job.job_id] = max(600.0, self._left_s[job.job_id] - ran_s)

    # -- below --------------------------------------------------------------------------------------------------------

    def _fill(self) -> None:
        for name in self._names:
            instance = self.ec2.add(name)
            is_lemon = self._random.random() < self._mix.lemon_share
            self._machines[name] = Machine(instance_id=instance.instance_id, is_lemon=is_lemon)
            group = self.rules.group_of(name)
            self.slurm.add_node(name, group.partition if group is not None else "")
            self._agents[name] = AgentView(
                node=name,
                heard_at=_HEARD,
                boot_id=f"{instance.instance_id}-0",
                instance_id=instance.instance_id,
                verdict=Verdict(state=NodeState.HEALTHY, since=_START),
            )
        self._instances = self.ec2.instances()
        self._tick()
        for _ in range(max(1, len(self._names) // 5)):
            self._submit()
        self._start_jobs()
        for kind in self._mix.kinds:
            self._come(kind.per_node_day * len(self._names), lambda kind=kind: self._strike_one(kind))  # type: ignore[misc]
        self._come(
            self._mix.operator_drains_per_node_day * len(self._names),
            lambda: self._operator_drains(self._random.choice(self._names)),
        )
        self._come(self._mix.refusals_per_month / 30, self._refusal)
        for storm in self._mix.storms:
            self._come(
                storm.per_month / 30,
                lambda storm=storm: self._storm(storm, self.tally.storms),  # type: ignore[misc]
            )

    def _come(self, per_day: float, happen: Callable[[], bool]) -> None:
        """Let something happen again and again at random."""
        if per_day <= 0:
            return

        def next_one() -> bool:
            self._come(per_day, happen)
            return happen()

        self._later(self._random.expovariate(per_day / _DAY_S), next_one)

    def _strike_one(self, kind: FaultKind) -> bool:
        """One node is struck; lemons so much more often than the others that the rate over all stays."""
        factor = self._mix.lemon_factor
        while True:
            node = self._random.choice(self._names)
            if self._machines[node].is_lemon or self._random.random() < 1 / factor:
                return self._strike(node, kind)

    def _refusal(self) -> bool:
        self._capacity(False)
        self._later(self._around(self._mix.refusal_s), lambda: self._capacity(True))
        return False

    def _touched(self, verb: str, node: str, reason: str) -> None:
        if not reason.startswith(SPARE_REASON):
            self.invariants.at_touch(verb, node)

    def _around(self, seconds: float) -> float:
        return self._random.uniform(0.5 * seconds, 1.5 * seconds)

    def _later(self, seconds: float, happen: Callable[[], bool]) -> None:
        self._at(self.now + seconds, happen)

    def _at(self, at: float, happen: Callable[[], bool]) -> None:
        self._sequence += 1
        # Whole seconds: the real controller looks once a second.
        heapq.heappush(self._queue, (float(int(at + 0.999)), self._sequence, happen))

    def _note(self, kind: str, data: dict[str, Any]) -> None:
        self._number += 1
        self._records.append(Record(number=self._number, at=self.now, kind=kind, data=data))

    def _fold(self) -> None:
        if self._records:
            for record in self._records:
                fold_into(self._draft, record)
            self._records = []
            self.ledger = self._draft.ledger()

    def _count_time(self, until: float) -> None:
        for name in self.slurm.changed:
            known = self.slurm.node_table[name]
            if is_serving(known) or known.is_spare:
                self._unserving.discard(name)
            else:
                self._unserving.add(name)
        self.slurm.changed.clear()
        span = until - self._counted_at
        self._counted_at = until
        self.tally.unserving_node_s += span * len(self._unserving)
        self.tally.busy_node_s += span * len(self.slurm.on)


def _populated(rules: Rules | None, nodes: int) -> tuple[Rules, tuple[str, ...]]:
    """The rules with groups that hold `nodes` nodes, and the nodes' names."""
    if rules is not None and rules.groups:
        return rules, tuple(dict.fromkeys(name for group in rules.groups for name in group.nodes))
    width = len(str(nodes))
    names = tuple(f"n{index:0{width}d}" for index in range(1, nodes + 1))
    group = Group(
        name="compute",
        nodes=names,
        partition="train",
        spares=max(1, nodes // 50),
        launch_template="compute",
        instance_type="p5.48xlarge",
    )
    if rules is None:
        rules = Rules(mode="act", max_out=max(2, nodes // 50), max_out_share=0.05, sweep_every_s=0.0)
    return dataclasses.replace(rules, groups=(group,)), names
