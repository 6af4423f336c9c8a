"""Weeks of a large cluster in virtual time: the real planner, the real fold and the real effects on simulated machines.

Nothing is looked at while nothing can change: the planner is level-triggered, so a tick runs when something is reported and
when something that it waits for falls due. An agent that lives is heard all along. The invariants of docs/flow.md are checked
at each touch and after each tick; what breaks one stands in the report.
"""

from __future__ import annotations

import dataclasses
import gc
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

from nodewatch.effects.perform import perform
from nodewatch.errors import CapacityError, NodewatchError
from nodewatch.model import actions as act
from nodewatch.model.cluster import SPARE_REASON, Snapshot
from nodewatch.model.ledger import Case, Ledger, Step
from nodewatch.model.plan import Plan
from nodewatch.model.records import Record
from nodewatch.policy import guards
from nodewatch.policy.budgets import is_serving
from nodewatch.policy.draft import Draft
from nodewatch.policy.fold import case_to_json, fold_into
from nodewatch.policy.plan import plan, validation_requests
from nodewatch.policy.rules import Group, Rules
from nodewatch.testing.ec2 import FakeEc2
from nodewatch.testing.sim_cluster import SimSlurm
from nodewatch.testing.sim_faults import FaultMix
from nodewatch.testing.sim_jobs import Jobs
from nodewatch.testing.sim_machines import Machines
from nodewatch.testing.sim_report import Invariants, Report, Tally
from nodewatch.testing.sim_stage import Agenda, Stage
from nodewatch.testing.sim_weather import Weather

_DAY_S = 86400.0
_START = 1_700_000_000.0
_MOST_ROUNDS = 12
_LOOK_AT_LEAST_S = 1800.0
"""The whole cluster is looked at so often, whether something happened or not."""


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
        self._end = _START + days * _DAY_S
        self._progress = progress
        self.rules, names = _populated(rules, nodes)
        self.ledger = Ledger()
        self.tally = Tally(nodes=len(names), seconds=days * _DAY_S)
        self._agenda = Agenda(_START)
        self.slurm = SimSlurm(lambda: self.now, self._touched)
        self.ec2 = FakeEc2()
        self.ec2.watch = lambda verb, node: self._touched(verb, node, "")
        self._stage = Stage(
            agenda=self._agenda,
            chance=random.Random(seed),
            mix=mix or FaultMix(),
            rules=self.rules,
            names=names,
            slurm=self.slurm,
            ec2=self.ec2,
            tally=self.tally,
            note=self._note,
        )
        self._jobs = Jobs(self._stage)
        self.machines = Machines(self._stage, self._jobs)
        self._jobs.is_broken = self.machines.has_fatal
        self._records: list[Record] = []
        # Kept: what has to be forgotten is found by an index that would be built anew with each.
        self._draft = Draft(self.ledger)
        self._number = 0
        self._alarm = 0
        self._cured: set[str] = set()
        self._unserving: set[str] = set()
        self._counted_at = self.now
        self.invariants = Invariants(self)
        self._fill()

    @property
    def now(self) -> float:
        """The virtual time."""
        return self._agenda.now

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
        while (at := self._agenda.next_at()) < self._end:
            self._count_time(at)
            is_news = self._agenda.come_to(at)
            self._jobs.start()
            if is_news:
                self._tick()
            if time.monotonic() - shown > 1.0:
                shown = time.monotonic()
                self._progress((self.now - _START) / (self._end - _START), self.tally)
        self._count_time(self._end)
        return self.tally.report(
            self.ledger, self.invariants, wall_s=time.monotonic() - began, cpu_s=time.process_time() - busy
        )

    # -- the controller -----------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        for round_number in range(_MOST_ROUNDS):
            self._fold()
            snapshot = Snapshot(
                taken_at=self.now,
                nodes=self.slurm.node_table,
                jobs=self.slurm.job_table,
                instances=self.machines.instances,
                agents=self.machines.agents,
                unreachable=frozenset(self.machines.silent),
            )
            began = time.process_time()
            decided = plan(snapshot, self.ledger, self.rules, self.now)
            self.tally.planned(time.process_time() - began, is_first=round_number == 0)
            self._decided(decided)
            for action in decided.actions:
                self._carry_out(action)
            self._jobs.ended_by_the_controller()
            self._jobs.start()
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
            self.machines.look_at_ec2()
            self._agenda.later(
                self._stage.around(self._stage.mix.boot_s), lambda: self.machines.boots(node, instance_id)
            )
        elif word in ("terminate", "quarantine"):
            self.machines.look_at_ec2()
            self.machines.goes_silent(node, getattr(action, "instance_id", ""))
        elif word in ("reboot", "reboot_instance"):
            self.machines.reboots(node)
        elif isinstance(action, act.ResetGpu):
            self._agenda.later(60.0, lambda: self.machines.answers_reset(node, action.key))
        elif isinstance(action, act.DeepCheck):
            self.machines.validates(node, action.key, action.suite)

    def _case_moved(self, case: Case) -> None:
        if case.step is Step.VALIDATING:
            for key, suite in validation_requests(case.node, self.ledger, self.rules, self.now):
                self.machines.validates(case.node, key, suite)
        elif case.step is Step.WAITING_FOR_HUMAN:
            self._agenda.later(
                self._stage.around(self._stage.mix.human_s), lambda: self._human_repairs(case.node, case.case_id)
            )
        elif case.step is Step.WATCHING and case.case_id not in self._cured:
            self._cured.add(case.case_id)
            self.tally.machine_back(self.now - (case.fault_at or case.opened_at))

    def _human_repairs(self, node: str, case_id: str) -> bool:
        """Somebody mended it and returned it to service."""
        case = self.ledger.cases.get(case_id)
        if case is None or case.step is not Step.WAITING_FOR_HUMAN:
            return False
        self.machines.is_repaired(node)
        self.slurm.operator(node, "")
        self.tally.humans += 1
        return True

    def _wake_for_what_waits(self) -> None:
        """A tick for the earliest instant at which the planner itself may decide otherwise."""
        due = [self.now + _LOOK_AT_LEAST_S]
        waiting: dict[tuple[float, float, str, int], Case] = {}
        for case in self.ledger.open_cases:
            if case.step is Step.HELD:
                # Of the thousands of a storm those that were opened at once wait alike.
                waiting[case.opened_at, case.step_at, case.fault, case.severity] = case
            else:
                due += self._due_of(case)
        for case in waiting.values():
            due += self._due_of(case)
        for job_id in self.slurm.pending:
            known = self.ledger.jobs.get(job_id)
            if known is not None and (self.slurm.job_table[job_id].begins_at or 0.0) > self.now:
                due.append(self.now + 2.0)
        at = min(moment for moment in due if moment > self.now)
        # Each tick sets the alarm anew; one set before goes off unheard.
        self._alarm += 1
        number = self._alarm
        self._agenda.at(at, lambda: number == self._alarm)

    def _due_of(self, case: Case) -> Iterator[float]:
        rules, age = self.rules, self.now - case.step_at
        if case.step is Step.HELD:
            if guards.unsettled(case, rules, self.now) is not None:
                ends = [case.opened_at + s for s in (rules.lost_settle_s, rules.settle_s, rules.shared_settle_s)]
                yield from (end for end in ends if guards.unsettled(case, rules, end) is None)
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

    # -- below --------------------------------------------------------------------------------------------------------

    def _fill(self) -> None:
        for name in self._stage.names:
            self.machines.add(name)
            group = self.rules.group_of(name)
            self.slurm.add_node(name, group.partition if group is not None else "")
        self.machines.look_at_ec2()
        self._tick()
        for _ in range(max(1, len(self._stage.names) // 5)):
            self._jobs.submit()
        self._jobs.start()
        Weather(self._stage, self.machines).begin()

    def _touched(self, verb: str, node: str, reason: str) -> None:
        if not reason.startswith(SPARE_REASON):
            self.invariants.at_touch(verb, node)

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
