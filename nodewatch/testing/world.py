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
from collections.abc import Callable, Mapping, Sequence

from nodewatch.config.pairs import PairsConfig
from nodewatch.controller.engine import Engine
from nodewatch.controller.pair_tests import PairTests
from nodewatch.effects.evidence import EvidenceStore
from nodewatch.model import actions as act
from nodewatch.model.cluster import SlurmJob, SlurmNode
from nodewatch.model.health import Finding, Remedy, Severity, StandingFinding, Verdict, state_of
from nodewatch.model.ledger import Case
from nodewatch.policy.plan import plan
from nodewatch.policy.progress import HangRules
from nodewatch.policy.requeue import limit_of
from nodewatch.policy.rules import Group, Rules
from nodewatch.policy.verbs import asked
from nodewatch.policy.wishes import is_forced, is_wished
from nodewatch.testing.ec2 import FakeEc2
from nodewatch.testing.journal import MemoryJournal
from nodewatch.testing.pairs import FakePairs
from nodewatch.testing.slurm import FakeSlurm


class FakeClock:
    """Time that moves only when told to. Seconds since the epoch."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Let so much time pass."""
        self.now += seconds


@dataclasses.dataclass
class Machine:
    """The hardware and the agent behind one Slurm node name, as they are now."""

    world: World
    name: str
    instance_id: str
    boot: int = 0
    alive: bool = True
    findings: tuple[StandingFinding, ...] = ()
    unknown: tuple[tuple[str, str], ...] = ()
    since: float = 0.0
    deep_checks: bool | None = True
    """What the deep checks will say."""
    sequence: int = 0
    boots_at: float = 0.0
    answered: set[str] = dataclasses.field(default_factory=set)
    tells: Callable[[], Mapping[str, object]] = dict
    """What its agent's messages say of its jobs' progress."""
    dumps: Callable[[int], list[dict[str, object]]] | None = None
    """Its agent's answer to `stack_dump` for a job; None: it gives none."""
    pending: list[dict[str, object]] = dataclasses.field(default_factory=list)

    def reports(
        self,
        fault: str,
        severity: Severity,
        remedy: Remedy,
        subject: str = "GPU-0",
        evidence: Mapping[str, object] | None = None,
    ) -> None:
        """A finding is made and stands from now on."""
        finding = Finding(fault=fault, subject=subject, severity=severity, remedy=remedy, evidence=evidence or {})
        now = self.world.clock()
        self.findings = (*self.findings, StandingFinding(finding=finding, first_at=now, last_at=now))
        self._changed()

    def has_gpus(self, *hardware: str) -> None:
        """Its agent tells the UUIDs of its GPUs."""
        if hardware:
            self.sequence += 1
            event = f"{self.instance_id}-{self.boot}:{self.sequence}"
            self.pending.append({"id": event, "at": self.world.clock(), "kind": "hardware", "hardware": list(hardware)})

    def loses_gpu(self) -> None:
        """Xid 79 and what NVML says after it."""
        self.reports("gpu.xid.79", Severity.FATAL, Remedy.REBOOT)
        self.reports("gpu.lost", Severity.FATAL, Remedy.REBOOT)

    def recovers(self) -> None:
        """All findings are gone."""
        self.findings = ()
        self._changed()

    def crashes(self) -> None:
        """The machine stops dead."""
        self.alive = False
        self.world.slurm.set_responding(self.name, False)

    def verdict(self) -> Verdict:
        """What its agent says now."""
        return Verdict(
            state=state_of(self.findings, self.unknown), since=self.since, findings=self.findings, unknown=self.unknown
        )

    def _changed(self) -> None:
        self.since = self.world.clock()
        self.sequence += 1
        self.pending.append(
            {
                "id": f"{self.instance_id}-{self.boot}:{self.sequence}",
                "at": self.since,
                "kind": "verdict",
                "verdict": self.verdict().to_json(),
            }
        )


class World:
    """See the module. Node names are n1..nN, the last `spares` of them beyond what jobs are expected to need."""

    def __init__(
        self,
        *,
        nodes: int = 4,
        spares: int = 1,
        boot_s: float = 60.0,
        rules: Rules | None = None,
        hang: HangRules | None = None,
    ) -> None:
        self.hang = hang
        self.clock = FakeClock()
        self.slurm = FakeSlurm(self.clock)
        self.ec2 = FakeEc2()
        self.journal = MemoryJournal()
        self.boot_s = boot_s
        names = tuple(f"n{index}" for index in range(1, nodes + 1))
        group = Group(
            name="compute",
            nodes=names,
            partition="train",
            spares=spares,
            launch_template="compute",
            instance_type="p5.48xlarge",
        )
        self.rules = dataclasses.replace(
            rules or Rules(mode="act", max_out_share=1.0, sweep_every_s=0.0), groups=(group,)
        )
        self._machines: dict[str, Machine] = {}
        self._marks: dict[int, str | None] = {}
        self._ec2_reboots: dict[str, int] = {}
        self.hooks: list[dict[str, object]] = []
        for name in names:
            instance = self.ec2.add(name)
            self.slurm.add_node(name, instance.private_ip)
            self._machines[name] = Machine(world=self, name=name, instance_id=instance.instance_id, since=self.clock())
        self.pairs = FakePairs(self.clock, self.slurm)
        self.pairs_config = PairsConfig()
        self.cloud: dict[str, tuple[StandingFinding, ...]] = {}
        """What EC2 says of instances, by id."""
        self.engine = self._engine()
        self.pair_tests = self._pair_tests()
        self.drop_events = False
        self._looked_at = 0
        self.slurm.watch = self.ec2.watch = self._check_touch

    # -- what happens -------------------------------------------------------------------------------------------------

    def node(self, name: str) -> Machine:
        """The machine that bears `name` now."""
        return self._machines[name]

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
        self.engine = self._engine()
        self.pair_tests = self._pair_tests()

    def run(self, *, seconds: float = 0.0, minutes: float = 0.0, step_s: float = 1.0) -> None:
        """Let time pass, a tick a step."""
        end = self.clock() + seconds + 60 * minutes
        while self.clock() < end:
            self.clock.advance(step_s)
            self.step()

    def step(self) -> None:
        """One instant: machines, agents, the queue, the hooks, the controller, the invariants."""
        self._machines_live()
        self._agents_speak()
        self.slurm.schedule()
        self._hooks_speak()
        self.engine.tick()
        self.check()
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

    # -- invariants ---------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """The rules of docs/flow.md that must hold after every tick. Raises AssertionError."""
        self._check_each_action_was_announced()
        self._check_blast_radius()
        self._check_one_machine_a_name()
        self._check_budgets()
        self._check_deep_checks_find_empty_nodes()
        if not self.slurm.outage and not self.journal.full:
            snapshot = self.engine.snapshot
            again = plan(snapshot, self.engine.ledger, self.rules, self.clock())
            assert not again.actions, f"planning again in the same instant gave {again.actions}"

    def _check_each_action_was_announced(self) -> None:
        intended: set[str] = set()
        for record in self.journal.records:
            if record.kind == "intended":
                intended.add(record.data["action"]["key"])
            elif record.kind in ("done", "failed"):
                assert record.data["key"] in intended, f"{record.data['key']} was done without being announced"

    def _check_touch(self, verb: str, node: str) -> None:
        """Called at the instant at which the controller changes a node or its machine."""
        known = self.slurm.node_table[node]
        launched = any(case.new_instance for case in self.cases(node) if case.is_open)
        wished = node in self.engine.ledger.wishes or any(is_wished(case) for case in self.cases(node) if case.is_open)
        assert (
            not known.is_foreign
            or wished
            or asked(known) is not None
            or (launched and verb in ("terminate", "address"))
        ), f"{verb} {node}, which somebody else took out of service ({known.reason})"
        is_lost = any(case.family == "node" for case in self.cases(node) if case.is_open)
        busy = [job.job_id for job in self.slurm.job_table.values() if job.is_running and node in job.nodes]
        is_lost = is_lost or any(is_forced(case) for case in self.cases(node) if case.is_open)
        if verb in ("terminate", "reboot") and not is_lost:
            assert not busy, f"{verb} {node} under the jobs {busy}"

    def _check_blast_radius(self) -> None:
        # An operator who forces a repair is told of the limit and passes it.
        out = {case.node for case in self.engine.ledger.open_cases if case.is_out and not is_forced(case)}
        assert len(out) <= self.rules.max_out, f"{sorted(out)} are out, the limit is {self.rules.max_out}"

    def _check_one_machine_a_name(self) -> None:
        for name in self._machines:
            alive = self.ec2.alive(name)
            assert len(alive) <= 2, f"{name} has the machines {alive}"

    def _check_budgets(self) -> None:
        for job in self.engine.ledger.jobs.values():
            limit = limit_of(job, self.rules)
            assert job.requeues <= limit, f"job {job.job_id} was requeued {job.requeues} times, the limit is {limit}"

    def _check_deep_checks_find_empty_nodes(self) -> None:
        new, self._looked_at = self.journal.records[self._looked_at :], len(self.journal.records)
        for record in new:
            action = record.data.get("action") if record.kind == "done" else None
            if action and action["action"] == "deep_check" and action["suite"] == "deep":
                jobs = [j.job_id for j in self.slurm.job_table.values() if j.is_running and action["node"] in j.nodes]
                assert not jobs, f"deep checks were asked of {action['node']} under the jobs {jobs}"

    # -- below --------------------------------------------------------------------------------------------------------

    def _pair_tests(self) -> PairTests:
        return PairTests(self.engine, self.pairs, self.pairs_config, self.clock)

    def _engine(self) -> Engine:
        return Engine(
            journal=self.journal,
            past=list(self.journal.records),
            slurm=self.slurm,
            ec2=self.ec2,
            rules=self.rules,
            clock=self.clock,
            reach=lambda node, _address: self._machines[node].alive,
            ec2_period_s=1.0,
            cloud=lambda: self.cloud,
            store=self.store,
            hang=self.hang,
        )

    def _machines_live(self) -> None:
        for name, machine in list(self._machines.items()):
            alive = self.ec2.alive(name)
            if machine.instance_id not in alive and machine.alive:
                machine.crashes()
            newest = [i for i in alive if i not in (machine.instance_id,)]
            if newest and not machine.alive:
                self._machines[name] = Machine(
                    world=self,
                    name=name,
                    instance_id=newest[-1],
                    since=self.clock(),
                    alive=False,
                    boots_at=self.clock() + self.boot_s,
                    deep_checks=self.next_deep_checks,
                )
                self._machines[name].has_gpus(*self.next_hardware)
            if machine.boots_at and not machine.alive and self.clock() >= machine.boots_at:
                machine.alive, machine.boots_at = True, 0.0
                self.slurm.set_responding(name, True)
            while machine.instance_id in self.ec2.rebooted[self._ec2_reboots.get(name, 0) :]:
                self._ec2_reboots[name] = len(self.ec2.rebooted)
                machine.alive, machine.boot = False, machine.boot + 1
                machine.boots_at = self.clock() + self.boot_s if self.ec2_reboots else 0.0
                self.slurm.set_responding(name, False)
            node = self.slurm.node_table[name]
            if "REBOOT_ISSUED" in node.states and machine.alive and not node.is_busy:
                machine.alive, machine.boot, machine.boots_at = False, machine.boot + 1, self.clock() + self.boot_s
                machine.boots_at = machine.boots_at if self.slurm_reboots else 0.0
                machine.findings = machine.findings if self.survives_reboot else ()
                machine.since = self.clock()
                self.slurm.node_table[name] = dataclasses.replace(node, states=node.states - {"REBOOT_ISSUED"})
                self.slurm.set_responding(name, False)

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

    def _agents_speak(self) -> None:
        for name, machine in sorted(self._machines.items()):
            if not machine.alive:
                continue
            message = {
                "node": name,
                "boot_id": f"{machine.instance_id}-{machine.boot}",
                "instance_id": machine.instance_id,
                "events": list(machine.pending),
                "verdict": machine.verdict().to_json(),
                **machine.tells(),
            }
            accepted, requests, _ = self.engine.receive_agent(message)
            if not self.drop_events:
                machine.pending = [event for event in machine.pending if event["id"] not in accepted]
            for request in requests:
                if request["kind"] == "reset_gpu":
                    self._reset_gpu(machine, request["key"])
                elif request["kind"] == "stack_dump":
                    self._dump_stacks(machine, request["key"], request["job"])
                elif request["key"] not in machine.answered:
                    machine.answered.add(request["key"])
                    running = [str(j.job_id) for j in self.slurm.job_table.values() if j.is_running and name in j.nodes]
                    job = running[0] if running and request["suite"] == "deep" else ""
                    machine.sequence += 1
                    machine.pending.append(
                        {
                            "id": f"{machine.instance_id}-{machine.boot}:{machine.sequence}",
                            "at": self.clock(),
                            "kind": "validated",
                            "key": request["key"],
                            "suite": request["suite"],
                            "passed": None if job else (machine.deep_checks if not machine.findings else False),
                            "gave_way_to": job,
                        }
                    )

    def _dump_stacks(self, machine: Machine, key: str, job_id: int) -> None:
        if key in machine.answered or machine.dumps is None:
            return
        machine.answered.add(key)
        machine.sequence += 1
        machine.pending.append(
            {
                "id": f"{machine.instance_id}-{machine.boot}:{machine.sequence}",
                "at": self.clock(),
                "kind": "stack_dump",
                "key": key,
                "job": job_id,
                "dumps": machine.dumps(job_id),
                "said": "",
            }
        )

    def _reset_gpu(self, machine: Machine, key: str) -> None:
        if key in machine.answered or self.reset_works is None:
            return
        machine.answered.add(key)
        if self.reset_works:
            machine.findings = tuple(s for s in machine.findings if s.finding.family != "gpu")
            machine.since = self.clock()
        machine.sequence += 1
        machine.pending.append(
            {
                "id": f"{machine.instance_id}-{machine.boot}:{machine.sequence}",
                "at": self.clock(),
                "kind": "gpu_reset",
                "key": key,
                "ok": self.reset_works,
                "said": "the GPUs were reset" if self.reset_works else "the driver refused",
            }
        )

    def _hooks_speak(self) -> None:
        for job_id, restart, nodes in self.slurm.started:
            self._hook("job_started", job_id, restart, nodes=nodes, auto_resume=self._marks.get(job_id))
        for job_id, restart, exit_code in self.slurm.ended:
            self._hook("job_ended", job_id, restart, exit_code=exit_code)
        self.slurm.started, self.slurm.ended = [], []

    def _hook(self, kind: str, job_id: int, restart: int, nodes: Sequence[str] = (), **extra: object) -> None:
        self.engine.receive_hook(
            {
                "v": 1,
                "kind": kind,
                "at": self.clock(),
                "job_id": job_id,
                "restart_count": restart,
                "nodes": ",".join(nodes),
                **extra,
            }
        )


__all__ = ["FakeClock", "Machine", "World", "act"]
