"""Random histories: faults, jobs, operators, outages, lost words and kills in any order. World checks its rules at each touch
and after each tick (nodewatch/testing/safety.py); what more must hold stands here.

`HYPOTHESIS_PROFILE=nightly` runs ten thousand of them.
"""

import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from nodewatch.controller.questions import Questions
from nodewatch.errors import JournalError
from nodewatch.model import actions as act
from nodewatch.model.health import Finding, Remedy, Severity, StandingFinding
from nodewatch.model.ledger import Ledger
from nodewatch.policy.fold import fold
from nodewatch.policy.plan import with_news
from nodewatch.policy.rules import Rules
from nodewatch.testing import World
from nodewatch.testing.journal import Killed

NAMES = ("n1", "n2", "n3", "n4", "n5")
NODES = st.sampled_from(NAMES)
FAULTS = st.sampled_from(
    [
        ("gpu.xid.79", Severity.FATAL, Remedy.REBOOT),
        ("gpu.remap_pending", Severity.DEGRADED, Remedy.RESET_GPU),
        ("gpu.xid.31", Severity.INFO, Remedy.RESTART_APP),
        ("filesystem.hung", Severity.DEGRADED, Remedy.HUMAN),
        ("host.memory", Severity.DEGRADED, Remedy.REPLACE),
        ("gpu.thermal", Severity.WARN, Remedy.NONE),
    ]
)
REASONS = st.sampled_from(
    ["by hand", "", "Action:Replace", "action: reboot.", "Action replace please", "Not responding"]
)
CAPACITY = st.sampled_from(
    [
        ("launch_template",),
        ("launch_template", "spot"),
        ("fleet:p5.48xlarge,p5e.48xlarge", "launch_template"),
        ("reservation:cr-0123456789abcdef0", "launch_template"),
        ("block:cr-0123456789abcdef0",),
        ("asg:workers",),
    ]
)
REFUSALS = st.sampled_from(
    ["UnauthorizedOperation", "InternalError", "InsufficientInstanceCapacity", "RequestLimitExceeded"]
)
SLURM_CALLS = ["drain", "mark_down", "set_reason", "resume", "requeue", "expedite", "set_address", "reboot"]
SLURM_CALLS += ["reserve", "unreserve"]
_DECISIONS = frozenset({"case", "judged", "intended", "done", "failed"})
EC2_CALLS = ["launch", "launch_fleet", "replace_in_asg", "terminate", "quarantine", "reboot", "console", "report"]


PAUSES = st.sampled_from([(0, 1.0), (1, 1.0), (2, 1.0), (5, 1.0), (30, 5.0), (120, 20.0), (400, 40.0)])
"""What passes after each event, in seconds, and how long a step of it is: nothing, a moment, or a boot and its checks."""


def event(**drawn: Any) -> Callable[[Callable[..., None]], Any]:
    """A rule after which time passes: a history in which nobody reacts shows nothing."""

    def decorate(happen: Callable[..., None]) -> Any:
        def and_time_passes(self: "Histories", pause: tuple[int, float], **values: Any) -> None:
            happen(self, **values)
            self.world.run(seconds=pause[0], step_s=pause[1])

        and_time_passes.__name__ = happen.__name__
        and_time_passes.__doc__ = happen.__doc__
        return rule(pause=PAUSES, **drawn)(and_time_passes)

    return decorate


class Histories(RuleBasedStateMachine):
    """One random cluster."""

    @initialize(
        capacity=CAPACITY,
        ends_first=st.booleans(),
        quarantines=st.booleans(),
        max_out=st.integers(1, 3),
        spares=st.integers(0, 2),
        waits_s=st.sampled_from([0.0, 45.0]),
        least=st.sampled_from([{}, {"train": 2}]),
        sweeps=st.booleans(),
    )
    def a_cluster(
        self,
        capacity: tuple[str, ...],
        ends_first: bool,
        quarantines: bool,
        max_out: int,
        spares: int,
        waits_s: float,
        least: dict[str, float],
        sweeps: bool,
    ) -> None:
        self.world = World(
            nodes=len(NAMES),
            spares=spares,
            boot_s=20.0,
            group={
                "capacity": capacity,
                "terminate_first": ends_first,
                "on_replace": "quarantine" if quarantines else "terminate",
            },
            rules=Rules(
                mode="act",
                max_out=max_out,
                max_out_share=0.6,
                healthy_delay_s=5.0,
                attribution_wait_s=5.0,
                degraded_wait_s=waits_s,
                min_healthy=least,
                sweep_every_s=900.0 if sweeps else 0.0,
            ),
        )
        for mark in ("default", "2", None):
            self.world.submit(nodes=1, auto_resume=mark)
        self.world.run(seconds=2)
        self.done: set[str] = set()
        self.looked_at = 0
        self.told: set[tuple[str, str]] = set()

    # -- time, faults and machines ------------------------------------------------------------------------------------

    @event(seconds=st.sampled_from([-30.0, 600.0]))
    def the_clock_is_set(self, seconds: float) -> None:
        self.world.clock.advance(seconds)

    @event(node=NODES, fault=FAULTS)
    def a_fault_is_found(self, node: str, fault: tuple[str, Severity, Remedy]) -> None:
        self._reports(node, *fault)

    @event(nodes=st.sets(NODES, min_size=3), fault=FAULTS)
    def a_fault_shows_on_many_nodes(self, nodes: set[str], fault: tuple[str, Severity, Remedy]) -> None:
        for node in sorted(nodes):
            self._reports(node, *fault)

    @event(node=NODES)
    def a_check_cannot_tell(self, node: str) -> None:
        self.world.node(node).cannot_tell("gpu_lost")

    @event(node=NODES)
    def a_fault_goes_away(self, node: str) -> None:
        self.world.node(node).recovers()

    @event(node=NODES)
    def a_machine_stops_dead(self, node: str) -> None:
        self.world.node(node).crashes()

    @event(node=NODES)
    def a_machine_reboots_by_itself(self, node: str) -> None:
        self.world.node(node).reboots()

    @event(node=NODES)
    def somebody_ends_a_machine(self, node: str) -> None:
        self.world.ec2.ends(self.world.node(node).instance_id)

    @event(node=NODES, fault=st.sampled_from(["ec2.system_impaired", "ec2.instance_impaired"]))
    def ec2_says_something_of_a_machine(self, node: str, fault: str) -> None:
        instance, now = self.world.node(node).instance_id, self.world.clock()
        finding = Finding(fault=fault, subject=instance, severity=Severity.FATAL, remedy=Remedy.REPLACE)
        self.world.cloud[instance] = (StandingFinding(finding=finding, first_at=now, last_at=now),)
        self.told.add((node, fault))

    @event(works=st.sampled_from([True, False, None]), survives=st.booleans())
    def small_repairs_work_or_not(self, works: bool | None, survives: bool) -> None:
        self.world.reset_works, self.world.survives_reboot = works, survives

    @event(slurm=st.booleans(), ec2=st.booleans())
    def machines_come_back_from_reboots_or_not(self, slurm: bool, ec2: bool) -> None:
        self.world.slurm_reboots, self.world.ec2_reboots = slurm, ec2

    @event(passed=st.sampled_from([True, False, None]))
    def new_machines_are_good_or_bad(self, passed: bool | None) -> None:
        self.world.next_deep_checks = passed

    # -- jobs ---------------------------------------------------------------------------------------------------------

    @event(nodes=st.integers(1, 4), mark=st.sampled_from([None, "default", "0", "2", "off"]))
    def a_job_is_submitted(self, nodes: int, mark: str | None) -> None:
        self.world.submit(nodes=nodes, auto_resume=mark)

    @event(data=st.data(), state=st.sampled_from([("FAILED", 1), ("COMPLETED", 0), ("CANCELLED", 0), ("NODE_FAIL", 0)]))
    def a_job_ends(self, data: st.DataObject, state: tuple[str, int]) -> None:
        running = sorted(job.job_id for job in self.world.slurm.job_table.values() if job.is_running)
        if running:
            self.world.slurm.end_job(data.draw(st.sampled_from(running)), *state)

    # -- operators ----------------------------------------------------------------------------------------------------

    @event(node=NODES, state=st.sampled_from(["drain", "down", "resume"]), reason=REASONS)
    def an_operator_interferes(self, node: str, state: str, reason: str) -> None:
        self.world.slurm.operator(node, state, "" if state == "resume" else reason)

    @event(node=NODES, verb=st.sampled_from(["replace", "reboot", "drain", "return"]), force=st.booleans())
    def an_operator_asks(self, node: str, verb: str, force: bool) -> None:
        self._asks(ask="verb", verb=verb, nodes=[node], force=force)

    @event(scope=st.sampled_from([[], ["partition:train"], ["node:n1", "node:n2"]]), ends=st.booleans())
    def an_operator_pauses(self, scope: list[str], ends: bool) -> None:
        self._asks(ask="resume" if ends else "pause", scopes=scope, seconds=300)

    @event(nodes=st.sets(NODES, min_size=1), suite=st.sampled_from(["deep", "quick"]))
    def an_operator_has_nodes_checked(self, nodes: set[str], suite: str) -> None:
        self._asks(ask="check", nodes=sorted(nodes), suite=suite)

    @event(nodes=st.sets(NODES, min_size=2))
    def an_operator_has_pairs_tested(self, nodes: set[str]) -> None:
        self._asks(ask="check_pairs", nodes=sorted(nodes))

    # -- outages, refusals and lost words -----------------------------------------------------------------------------

    @event(outage=st.booleans())
    def slurm_comes_and_goes(self, outage: bool) -> None:
        self.world.slurm.outage = outage

    @event(outage=st.booleans(), no_capacity=st.booleans())
    def ec2_comes_and_goes(self, outage: bool, no_capacity: bool) -> None:
        self.world.ec2.outage, self.world.ec2.no_capacity = outage, no_capacity

    @event(source=st.sampled_from(["launch_template", "spot", "asg:workers"]), code=st.one_of(st.none(), REFUSALS))
    def ec2_refuses_a_source(self, source: str, code: str | None) -> None:
        self.world.ec2.refuses = {} if code is None else {source: code}

    @event(lag=st.booleans(), slow=st.booleans(), launched=st.booleans())
    def ec2_lags(self, lag: bool, slow: bool, launched: bool) -> None:
        self.world.ec2.lag, self.world.ec2.end_takes_time, self.world.ec2.asg_has_launched = lag, slow, launched
        if not lag:
            self.world.ec2.hidden.clear()
        if not slow:
            self._machines_end()

    @event(refused=st.sampled_from(["drain", "resume", "requeue", "expedite", "address", "down", "reboot", "reserve"]))
    def slurm_refuses_something_once(self, refused: str) -> None:
        self.world.slurm.refuse = [refused]

    @event(call=st.sampled_from(SLURM_CALLS))
    def slurm_does_something_and_its_answer_is_lost(self, call: str) -> None:
        self.world.slurm_link.loses = [call]

    @event(call=st.sampled_from(EC2_CALLS))
    def ec2_does_something_and_its_answer_is_lost(self, call: str) -> None:
        self.world.ec2_link.loses = [call]

    @event(duplicated=st.booleans())
    def events_arrive_more_than_once(self, duplicated: bool) -> None:
        self.world.drop_events = duplicated

    @event(node=NODES)
    def events_of_an_agent_are_lost(self, node: str) -> None:
        self.world.node(node).forgets()

    @event(come=st.sampled_from(["once", "twice", "late", "never"]))
    def hooks_come(self, come: str) -> None:
        self.world.hooks_come = come

    # -- the controller -----------------------------------------------------------------------------------------------

    @event()
    def the_controller_is_killed(self) -> None:
        self.world.restart_controller()

    @event(records=st.integers(1, 12), after=st.booleans())
    def the_controller_will_be_killed(self, records: int, after: bool) -> None:
        """Just before or after one of its next records: between what it intends, does, and writes down."""
        self.world.journal.kills_at, self.world.journal.kills_after = len(self.world.journal.records) + records, after

    @event(always=st.booleans())
    def the_controller_is_killed_after_every_single_action(self, always: bool) -> None:
        self.world.journal.kills_after_actions = always

    @event(seconds=st.integers(1, 20))
    def the_disk_is_full(self, seconds: int) -> None:
        """The controller stops; it is started again and again, and works when there is room."""
        self.world.journal.full = True
        for _ in range(seconds):
            self.world.clock.advance(1.0)
            try:
                self.world.step()
            except JournalError:
                continue
        self.world.journal.full = False
        self.world.restart_controller()

    # -- what must hold -----------------------------------------------------------------------------------------------

    @invariant()
    def no_action_is_carried_out_twice(self) -> None:
        records = self.world.journal.records
        new, self.looked_at = records[self.looked_at :], len(records)
        for record in new:
            if record.kind == "done":
                assert record.data["key"] not in self.done, record.data["key"]
                self.done.add(record.data["key"])
            elif record.kind == "case":
                self._follows_from_something(record.data["case"])

    @invariant()
    def no_live_machine_is_forgotten(self) -> None:
        """Each launched machine is in a case, in what came of a launch, or of a launch whose outcome is not told yet."""
        known = {machine.instance_id for machine in self.world.machines.values()}
        untold = False
        for case in self.world.engine.ledger.cases.values():
            known |= {case.new_instance, case.old_instance}
        for record in self.world.engine.ledger.actions.values():
            if isinstance(record.action, act.Launch):
                known.add(str(record.result.get("instance_id", "")))
                untold |= not record.result
        known |= set(self.world.ec2.quarantined) | set(self.world.ec2.terminated)
        forgotten = [i for i in self.world.ec2.launched if i not in known and self._is_alive(i)]
        assert not forgotten or untold, forgotten

    @invariant()
    def of_jobs_that_are_passed_over_nothing_would_follow(self) -> None:
        engine = self.world.engine
        suspected = {case.node for case in engine.ledger.cases.values()}
        looked_at = {job.job_id for job in with_news(suspected, engine.snapshot, engine.ledger)}
        for job_id, job in engine.ledger.jobs.items():
            if job_id not in looked_at and job_id in engine.snapshot.jobs:
                assert job.ended_at is None, f"job {job_id} ended and is not looked at"

    def teardown(self) -> None:
        """Left alone for two hours with everything working, each repair comes to an end or says what it waits for."""
        if not hasattr(self, "world"):
            return
        world = self.world
        self._everything_works()
        self._comes_to_rest()
        self.no_action_is_carried_out_twice()
        ledger = world.engine.ledger
        assert fold(Ledger(), world.journal.records) == ledger, "the memory is not what the journal says"
        cases = {case.node: case for case in ledger.open_cases}
        for name in NAMES:
            node = world.slurm_node(name)
            if name not in cases:
                assert not (node.is_out and node.is_ours) or node.is_spare, f"{name} was left behind: {node.reason}"
                assert len(world.ec2.alive(name)) <= 1, f"{name} has the machines {world.ec2.alive(name)}"
        for job in world.slurm.job_table.values():
            ours = set(ledger.jobs[job.job_id].excluded) if job.job_id in ledger.jobs else set()
            left = ours & set(job.excluded_nodes) - set(cases)
            assert not (job.is_pending and left), f"job {job.job_id} still keeps away from {left}"

    # -- below --------------------------------------------------------------------------------------------------------

    def _asks(self, **question: Any) -> None:
        world = self.world
        questions = Questions(world.engine, may_act={0}, problems=list, clock=world.clock, wake=lambda: None)
        try:
            questions.answer(question, 0)
        except Killed:
            world.restart_controller()

    def _reports(self, node: str, fault: str, severity: Severity, remedy: Remedy) -> None:
        self.world.node(node).reports(fault, severity, remedy)
        if severity >= Severity.DEGRADED:
            self.told.add((node, fault))

    def _comes_to_rest(self) -> None:
        """Two hours pass, or as long as it takes until nothing is open, or nothing has been done for forty minutes."""
        quiet_min = 0
        for _ in range(12):
            before = len(self.world.journal.records)
            self.world.run(minutes=10, step_s=20.0)
            is_quiet = not any(record.kind in _DECISIONS for record in self.world.journal.records[before:])
            quiet_min = quiet_min + 10 if is_quiet else 0
            if quiet_min >= 40 or (is_quiet and not self.world.engine.ledger.open_cases):
                return

    def _follows_from_something(self, case: dict[str, Any]) -> None:
        """Unknown is never bad: a case is about what was told of its node, what its operators want, or a dead machine."""
        assert case["severity"] in ("degraded", "fatal")
        is_told = (case["node"], case["fault"]) in self.told
        assert is_told or case["family"] in ("node", "operator", "pair", "fabric"), (
            f"{case['case_id']}: nobody told of it"
        )

    def _is_alive(self, instance_id: str) -> bool:
        return any(instance_id in self.world.ec2.alive(name) for name in NAMES)

    def _machines_end(self) -> None:
        for instance_id, instance in self.world.ec2.everything.items():
            if instance.state == "shutting-down":
                self.world.ec2.ends(instance_id)

    def _everything_works(self) -> None:
        world = self.world
        world.journal.kills_at, world.journal.kills_after_actions = 0, False
        world.slurm.outage = world.ec2.outage = world.ec2.no_capacity = world.ec2.lag = world.ec2.end_takes_time = False
        world.ec2.refuses, world.slurm.refuse = {}, []
        world.slurm_link.loses, world.ec2_link.loses = [], []
        world.ec2.hidden.clear()
        self._machines_end()
        world.ec2.asg_has_launched = True
        world.drop_events, world.hooks_come = False, "once"
        world.next_deep_checks = world.reset_works = True
        world.slurm_reboots = world.ec2_reboots = True
        world.survives_reboot = False
        world.cloud.clear()
        for name in NAMES:
            if world.node(name).alive:
                world.node(name).recovers()
        for job in list(world.slurm.job_table.values()):
            if job.is_running and world.engine.ledger.jobs.get(job.job_id) is None:
                world.slurm.end_job(job.job_id, "COMPLETED", 0)


settings.register_profile(
    "ci",
    max_examples=150,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
settings.register_profile(
    "nightly", max_examples=10_000, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
_PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "ci")
TestHistories = pytest.mark.timeout(0 if _PROFILE == "nightly" else 900)(Histories.TestCase)
TestHistories.settings = settings.get_profile(_PROFILE)
