"""A whole cluster on one fake clock: agents, jobs, Slurm and EC2 around the real engine.

    world = World(nodes=4, spares=1)
    job = world.submit(nodes=3, auto_resume="3")
    world.run(seconds=30)
    world.node("n2").loses_gpu()
    world.run(minutes=5)
    assert world.job(job).restart_count == 1

After every tick the invariants of docs/flow.md are checked; a broken one raises AssertionError with the story.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from nodewatch.config.pairs import PairsConfig
from nodewatch.controller.engine import Engine
from nodewatch.controller.pair_tests import PairTests
from nodewatch.effects.evidence import EvidenceStore
from nodewatch.errors import Ec2Error, SlurmError
from nodewatch.model import actions as act
from nodewatch.model.auto_resume import SiteDefault
from nodewatch.model.cluster import SlurmJob, SlurmNode
from nodewatch.model.health import StandingFinding
from nodewatch.model.ledger import Case
from nodewatch.policy.progress import HangRules
from nodewatch.policy.rules import Group, Rules
from nodewatch.testing import machines
from nodewatch.testing.clock import FakeClock
from nodewatch.testing.ec2 import FakeEc2
from nodewatch.testing.journal import Killed, MemoryJournal
from nodewatch.testing.machines import Machine
from nodewatch.testing.pairs import FakePairs
from nodewatch.testing.safety import Safety
from nodewatch.testing.slurm import FakeSlurm
from nodewatch.testing.unreliable import LosesAnswers


class World:
    """See the module. Node names are n1..nN, the last `spares` of them beyond what jobs are expected to need."""

    slurm_reboots = True
    """Whether a machine comes back from a reboot by Slurm."""
    ec2_reboots = True
    next_hardware: tuple[str, ...] = ()
    """The GPUs of the next new machine, as its agent tells them."""
    store: EvidenceStore | None = None
    """Where evidence is put; the controller has it from its next start on."""
    next_deep_checks: bool | None = True
    """What the deep checks of the next new machine will say."""
    reset_works: bool | None = True
    """Whether GPU resets cure; None: agents never answer one."""
    survives_reboot = False
    """Whether faults outlive a reboot."""

    def __init__(
        self,
        *,
        nodes: int = 4,
        spares: int = 1,
        boot_s: float = 60.0,
        rules: Rules | None = None,
        hang: HangRules | None = None,
        group: Mapping[str, Any] | None = None,
    ) -> None:
        """`group`: further fields of the one group of all nodes."""
        self.hang = hang
        self.clock = FakeClock()
        self.slurm = FakeSlurm(self.clock)
        self.ec2 = FakeEc2()
        self.slurm_link = LosesAnswers(self.slurm, SlurmError)
        self.ec2_link = LosesAnswers(self.ec2, Ec2Error)
        """What the controller has of Slurm and EC2."""
        self.journal = MemoryJournal()
        self.boot_s = boot_s
        names = tuple(f"n{index}" for index in range(1, nodes + 1))
        fields = {"launch_template": "compute", "instance_type": "p5.48xlarge", **(group or {})}
        whole = Group(name="compute", nodes=names, partition="train", spares=spares, **fields)
        self.rules = dataclasses.replace(
            rules or Rules(mode="act", max_out_share=1.0, sweep_every_s=0.0), groups=(whole,)
        )
        self.machines: dict[str, Machine] = {}
        self._marks: dict[int, str | None] = {}
        self.ec2_reboots_seen: dict[str, int] = {}
        self.hooks: list[dict[str, object]] = []
        self.asked_to_save: set[tuple[int, str, str]] = set()
        self.bad_nodes: dict[tuple[int, str], tuple[str, ...]] = {}
        """By job and node: the bad nodes that the agent there was told of last."""
        """(job, reason, node) of what agents were asked for."""
        self.site_defaults: tuple[SiteDefault, ...] = ()
        """As in controller.toml; those that are set later count from the next start of the controller on."""
        """What Slurm's hooks have left for the controller and it has not taken yet."""
        self.hooks_come = "once"
        """How: `once`, `twice`, `late` (not before this is changed) or `never`."""
        for name in names:
            instance = self.ec2.add(name)
            self.slurm.add_node(name, instance.private_ip)
            self.machines[name] = Machine(world=self, name=name, instance_id=instance.instance_id, since=self.clock())
        self.pairs = FakePairs(self.clock, self.slurm)
        self.pairs_config = PairsConfig()
        self.cloud: dict[str, tuple[StandingFinding, ...]] = {}
        """What EC2 says of instances, by id."""
        self.engine = self._engine()
        self.pair_tests = self._pair_tests()
        self.drop_events = False
        self.safety = Safety(self)
        self.slurm.watch = self.ec2.watch = self.safety.at_touch

    # -- what happens -------------------------------------------------------------------------------------------------

    def node(self, name: str) -> Machine:
        """The machine that bears `name` now."""
        return self.machines[name]

    def submit(self, *, nodes: int, auto_resume: str | None) -> int:
        """A batch job, marked or not; returns its id."""
        job_id = self.slurm.submit(nodes)
        self._marks[job_id] = auto_resume
        return job_id

    def submit_array(self, *, tasks: int, auto_resume: str | None) -> list[int]:
        """A job array of one node an element; returns the elements' job ids."""
        ids = self.slurm.submit_array(tasks)
        self._marks.update(dict.fromkeys(ids, auto_resume))
        return ids

    def fails(self, job_id: int, exit_code: int = 1) -> None:
        """The program of a running job fails."""
        self.slurm.end_job(job_id, "FAILED", exit_code)

    def slow_link(self, node: str) -> None:
        """The network of `node` is slow with everybody."""
        self.pairs.slow.add(node)

    def slow_path(self, first: str, second: str) -> None:
        """The way between two nodes is slow, and neither of them is."""
        self.pairs.slow_paths.add(frozenset((first, second)))

    def ask_pairs(self, nodes: Sequence[str]) -> str:
        """An operator asks for a pair test; returns its key."""
        return f"pairs:{self.engine.note('pairs_asked', {'nodes': sorted(nodes), 'by': 'ada'}).number}"

    def restart_controller(self) -> None:
        """The controller is killed and starts again from its journal."""
        while True:
            try:
                self.engine = self._engine()
                self.pair_tests = self._pair_tests()
                return
            except Killed:
                continue

    def run(self, *, seconds: float = 0.0, minutes: float = 0.0, step_s: float = 1.0) -> None:
        """Let time pass, a tick a step."""
        end = self.clock() + seconds + 60 * minutes
        while self.clock() < end:
            self.clock.advance(step_s)
            self.step()

    def step(self) -> None:
        """One instant: machines, agents, the queue, the hooks, the controller, the invariants.

        A controller that is killed in it starts again at once, and lives through the instant once more.
        """
        while True:
            try:
                self._step()
                return
            except Killed:
                self.restart_controller()

    def _step(self) -> None:
        machines.live(self)
        machines.speak(self)
        self.slurm.schedule()
        self._hooks_speak()
        self.engine.tick()
        self.safety.after_tick()
        self.pair_tests.look()
        self.slurm.schedule()
        self._hooks_speak()

    # -- what is seen -------------------------------------------------------------------------------------------------

    def slurm_node(self, name: str) -> SlurmNode:
        """Slurm's view of a node, read past every outage."""
        return self.slurm.node_table[name]

    def job(self, job_id: int) -> SlurmJob:
        """Slurm's view of a job, read past every outage."""
        return self.slurm.job_table[job_id]

    def judged(self, job_id: int) -> str:
        """What the user of a marked job reads about its last interruption."""
        return self.engine.ledger.jobs[job_id].judged

    def cases(self, node: str) -> list[Case]:
        """All cases of a node, oldest first."""
        cases = [case for case in self.engine.ledger.cases.values() if case.node == node]
        return sorted(cases, key=lambda case: case.opened_at)

    def story(self, *words: str) -> list[str]:
        """The words of the actions that were done, in order; with `words`, only those."""
        done = [r.data["action"]["action"] for r in self.journal.records if r.kind == "done"]
        return [word for word in done if not words or word in words]

    def reasons(self, subject: str) -> list[str]:
        """Why things about `subject` are held back now."""
        return [held.why for held in self.engine.held if held.subject == subject]

    # -- below --------------------------------------------------------------------------------------------------------

    def _pair_tests(self) -> PairTests:
        return PairTests(self.engine, self.pairs, self.pairs_config, self.clock)

    def _engine(self) -> Engine:
        return Engine(
            journal=self.journal,
            past=list(self.journal.records),
            slurm=self.slurm_link,
            ec2=self.ec2_link,
            rules=self.rules,
            clock=self.clock,
            reach=lambda node, _address: self.machines[node].alive,
            ec2_period_s=1.0,
            cloud=lambda: self.cloud,
            store=self.store,
            hang=self.hang,
            site_defaults=self.site_defaults,
        )

    def _hooks_speak(self) -> None:
        for job_id, restart, nodes in self.slurm.started:
            self._hook("job_started", job_id, restart, nodes=nodes, auto_resume=self._marks.get(job_id))
        for job_id, restart, exit_code in self.slurm.ended:
            self._hook("job_ended", job_id, restart, exit_code=exit_code)
        self.slurm.started, self.slurm.ended = [], []
        while self.hooks and self.hooks_come != "late":
            self.engine.receive_hook(self.hooks[0])
            del self.hooks[0]

    def _hook(self, kind: str, job_id: int, restart: int, nodes: Sequence[str] = (), **extra: object) -> None:
        hook = {"v": 1, "kind": kind, "at": self.clock(), "job_id": job_id, "restart_count": restart}
        copies = {"never": 0, "twice": 2}.get(self.hooks_come, 1)
        self.hooks += [{**hook, "nodes": ",".join(nodes), **extra}] * copies


__all__ = ["FakeClock", "Machine", "World", "act"]
