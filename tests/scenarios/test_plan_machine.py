"""Random histories: faults, jobs, operators, outages, crashes and restarts in any order. World checks its invariants each step.

`HYPOTHESIS_PROFILE=nightly` runs ten thousand of them.
"""

import os
from collections import Counter

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from nodewatch.model import actions as act
from nodewatch.model.health import Remedy, Severity
from nodewatch.policy.rules import Rules
from nodewatch.testing import World

NODES = st.sampled_from(["n1", "n2", "n3", "n4", "n5"])
FAULTS = st.sampled_from(
    [
        ("gpu.xid.79", Severity.FATAL, Remedy.REBOOT),
        ("gpu.remap_pending", Severity.DEGRADED, Remedy.RESET_GPU),
        ("gpu.xid.31", Severity.INFO, Remedy.RESTART_APP),
        ("filesystem.hung", Severity.DEGRADED, Remedy.HUMAN),
        ("host.memory", Severity.DEGRADED, Remedy.REPLACE),
    ]
)


class Histories(RuleBasedStateMachine):
    """One random cluster."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(
            nodes=5,
            spares=1,
            boot_s=20.0,
            rules=Rules(
                mode="act",
                max_out=2,
                max_out_share=0.5,
                healthy_delay_s=5.0,
                attribution_wait_s=5.0,
                sweep_every_s=900.0,
            ),
        )

    @rule(seconds=st.integers(1, 90))
    def time_passes(self, seconds: int) -> None:
        self.world.run(seconds=seconds)

    @rule(node=NODES, fault=FAULTS)
    def a_fault_is_found(self, node: str, fault: tuple[str, Severity, Remedy]) -> None:
        name, severity, remedy = fault
        self.world.node(node).reports(name, severity, remedy)

    @rule(node=NODES)
    def a_fault_goes_away(self, node: str) -> None:
        self.world.node(node).recovers()

    @rule(node=NODES)
    def a_machine_stops_dead(self, node: str) -> None:
        self.world.node(node).crashes()

    @rule(nodes=st.integers(1, 4), mark=st.sampled_from([None, "default", "0", "2", "off"]))
    def a_job_is_submitted(self, nodes: int, mark: str | None) -> None:
        self.world.submit(nodes=nodes, auto_resume=mark)

    @rule(data=st.data())
    def a_job_fails(self, data: st.DataObject) -> None:
        running = sorted(job.job_id for job in self.world.slurm.job_table.values() if job.is_running)
        if running:
            self.world.fails(data.draw(st.sampled_from(running)))

    @rule(node=NODES, state=st.sampled_from(["drain", "resume"]))
    def an_operator_interferes(self, node: str, state: str) -> None:
        self.world.slurm.operator(node, state, "by hand" if state == "drain" else "")

    @rule(outage=st.booleans())
    def slurm_comes_and_goes(self, outage: bool) -> None:
        self.world.slurm.outage = outage

    @rule(outage=st.booleans(), no_capacity=st.booleans())
    def ec2_comes_and_goes(self, outage: bool, no_capacity: bool) -> None:
        self.world.ec2.outage, self.world.ec2.no_capacity = outage, no_capacity

    @rule(passed=st.sampled_from([True, False, None]))
    def new_machines_are_good_or_bad(self, passed: bool | None) -> None:
        self.world.next_deep_checks = passed

    @rule(duplicated=st.booleans())
    def events_arrive_more_than_once(self, duplicated: bool) -> None:
        self.world.drop_events = duplicated

    @rule(refused=st.sampled_from(["drain", "resume", "requeue", "expedite", "address"]))
    def slurm_refuses_something_once(self, refused: str) -> None:
        self.world.slurm.refuse = [refused]

    @rule()
    def the_controller_is_killed(self) -> None:
        self.world.restart_controller()

    @invariant()
    def no_action_is_carried_out_twice(self) -> None:
        done = Counter(r.data["key"] for r in self.world.journal.records if r.kind == "done")
        assert not [key for key, times in done.items() if times > 1]

    @invariant()
    def nothing_destructive_follows_from_what_is_not_fatal_or_degraded(self) -> None:
        for record in self.world.journal.records:
            if record.kind == "case":
                assert record.data["case"]["severity"] in ("degraded", "fatal")

    @invariant()
    def no_live_machine_is_forgotten(self) -> None:
        """Each launched machine bears a name whose case knows it, or took its name over."""
        known = {case.new_instance for case in self.world.engine.ledger.cases.values()}
        known |= {case.old_instance for case in self.world.engine.ledger.cases.values()}
        for record in self.world.engine.ledger.actions.values():
            if isinstance(record.action, act.Launch):
                known.add(str(record.result.get("instance_id", "")))
        for instance in self.world.ec2.launched:
            if instance not in self.world.ec2.terminated:
                assert instance in known

    def teardown(self) -> None:
        """Left alone for two hours with everything working, each repair comes to an end or says what it waits for."""
        self.world.slurm.outage = self.world.ec2.outage = self.world.ec2.no_capacity = False
        self.world.drop_events = False
        self.world.next_deep_checks = True
        self.world.slurm.refuse = []
        for name in ("n1", "n2", "n3", "n4", "n5"):
            if self.world.node(name).alive:
                self.world.node(name).recovers()
        for job in list(self.world.slurm.job_table.values()):
            if job.is_running and self.world.engine.ledger.jobs.get(job.job_id) is None:
                self.world.slurm.end_job(job.job_id, "COMPLETED", 0)
        self.world.run(minutes=120, step_s=20.0)
        for case in self.world.engine.ledger.open_cases:
            held = [item.why for item in self.world.engine.held if item.case_id == case.case_id]
            assert held, f"{case.case_id} is open ({case.step.value}) and nothing says why"


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
TestHistories = Histories.TestCase
TestHistories.settings = settings.get_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))
