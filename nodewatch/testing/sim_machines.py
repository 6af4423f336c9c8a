"""The machines of a simulated cluster and what their agents say: faults, silence, boots, deep checks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

from nodewatch.model.cluster import AgentView, Instance
from nodewatch.model.health import Finding, NodeState, StandingFinding, Verdict, remedy_of, severity_of, state_of
from nodewatch.testing.sim_faults import FaultKind
from nodewatch.testing.sim_jobs import Jobs
from nodewatch.testing.sim_stage import Stage

_HEARD = 1e15
"""When a living agent was heard: it always was just now."""


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


class Machines:
    """By node: what bears its name, and what its agent last said."""

    def __init__(self, stage: Stage, jobs: Jobs) -> None:
        self._stage = stage
        self._jobs = jobs
        self._by_node: dict[str, Machine] = {}
        self._past: dict[str, list[tuple[float, float, int]]] = {}
        """By node, (begin, end, storm) of the troubles that are over."""
        self._asked: set[str] = set()
        self.agents: dict[str, AgentView] = {}
        self.silent: set[str] = set()
        self.instances: Mapping[str, Instance] = {}
        """EC2's picture, as it was last asked for."""

    def of(self, node: str) -> Machine:
        """The machine that bears `node` now."""
        return self._by_node[node]

    def has_fatal(self, node: str) -> bool:
        """Whether a job that starts on it dies."""
        return any(severity_of(trouble.kind.severity).word == "fatal" for trouble in self._by_node[node].troubles)

    def had_trouble(self, node: str, since: float) -> set[int]:
        """The storms (-1: none) of actionable troubles that `node` has, or had at `since` or later; empty when it was well."""
        found = {t.storm for t in self._by_node[node].troubles if t.kind.is_actionable}
        return found | {storm for _, end, storm in self._past.get(node, ()) if end >= since}

    def add(self, node: str) -> None:
        """A healthy machine that has been there for long."""
        instance = self._stage.ec2.add(node)
        is_lemon = self._stage.chance.random() < self._stage.mix.lemon_share
        self._by_node[node] = Machine(instance_id=instance.instance_id, is_lemon=is_lemon)
        self.agents[node] = AgentView(
            node=node,
            heard_at=_HEARD,
            boot_id=f"{instance.instance_id}-0",
            instance_id=instance.instance_id,
            verdict=Verdict(state=NodeState.HEALTHY, since=self._stage.agenda.now),
        )

    def look_at_ec2(self) -> None:
        """A machine was launched or ended."""
        self.instances = self._stage.ec2.instances()

    def strike(self, node: str, kind: FaultKind, storm: int = -1) -> bool:
        """A fault comes over a node."""
        machine = self._by_node[node]
        if kind.fault == "program":
            job_id = self._stage.slurm.on.get(node)
            return job_id is not None and self._jobs.fails(job_id, self._stage.slurm.job_table[job_id].restart_count)
        if not machine.is_alive or any(t.kind.fault == kind.fault for t in machine.troubles):
            return False
        trouble = Trouble(
            kind=kind, subject=f"GPU-{node}-{machine.instance_id}", at=self._stage.agenda.now, storm=storm
        )
        machine.troubles.append(trouble)
        self._stage.tally.struck(kind, storm)
        if kind.fault in ("node.lost", "switch"):
            if kind.fault == "switch":
                self._stage.agenda.later(kind.lasts_s, lambda: self._is_back(node, trouble))
            self.goes_silent(node, machine.instance_id)
            return False
        if kind.lasts_s:
            self._stage.agenda.later(kind.lasts_s, lambda: self._passes(node, trouble))
        job_id = self._stage.slurm.on.get(node)
        if job_id is not None and severity_of(kind.severity).word == "fatal":
            self._jobs.hit(job_id)
            if self._stage.chance.random() < kind.fails_job:
                restart = self._stage.slurm.job_table[job_id].restart_count
                self._stage.agenda.later(
                    self._stage.chance.uniform(1.0, 20.0), lambda: self._jobs.fails(job_id, restart)
                )
        self._speaks(node)
        return True

    def goes_silent(self, node: str, instance_id: str) -> None:
        """The machine ends or is cut off; of another machine than `instance_id` names nothing is done."""
        machine = self._by_node[node]
        if not machine.is_alive or instance_id not in ("", machine.instance_id):
            return
        machine.is_alive = False
        self._stage.slurm.set_responding(node, False)
        self.silent.add(node)
        job_id = self._stage.slurm.on.get(node)
        if job_id is not None:
            self._jobs.hit(job_id)
        self.agents[node] = dataclasses.replace(self.agents[node], heard_at=self._stage.agenda.now, validating="")
        self._stage.agenda.later(self._stage.rules.agent_silence_s + 0.1, lambda: not self._by_node[node].is_alive)

    def _is_back(self, node: str, trouble: Trouble) -> bool:
        """The network answers again: the same machine in the same boot."""
        machine = self._by_node[node]
        if trouble not in machine.troubles:
            return False
        self._over(node, trouble)
        self._alive_again(node)
        return True

    def _passes(self, node: str, trouble: Trouble) -> bool:
        if trouble not in self._by_node[node].troubles:
            return False
        self._over(node, trouble)
        if self._by_node[node].is_alive:
            self._speaks(node)
        self._stage.agenda.later(self._stage.rules.healthy_delay_s + 1.0, lambda: True)
        return trouble.kind.is_actionable

    def _over(self, node: str, trouble: Trouble) -> None:
        self._by_node[node].troubles.remove(trouble)
        if trouble.kind.is_actionable:
            self._past.setdefault(node, []).append((trouble.at, self._stage.agenda.now, trouble.storm))

    def _alive_again(self, node: str) -> None:
        self._by_node[node].is_alive = True
        self.silent.discard(node)
        self._stage.slurm.set_responding(node, True)
        self._speaks(node)

    def _speaks(self, node: str) -> None:
        """The agent's verdict changed, or its machine did."""
        machine = self._by_node[node]
        findings = tuple(
            StandingFinding(
                finding=Finding(
                    fault=t.kind.fault,
                    subject=t.subject,
                    severity=severity_of(t.kind.severity),
                    remedy=remedy_of(t.kind.remedy),
                ),
                first_at=t.at,
                last_at=self._stage.agenda.now,
            )
            for t in machine.troubles
            if t.kind.fault not in ("node.lost", "switch")
        )
        boot_id = f"{machine.instance_id}-{machine.boot}"
        verdict = Verdict(state=state_of(findings, ()), since=self._stage.agenda.now, findings=findings)
        before = self.agents.get(node)
        self.agents[node] = AgentView(
            node=node,
            heard_at=_HEARD,
            boot_id=boot_id,
            instance_id=machine.instance_id,
            verdict=verdict,
            validating=before.validating if before is not None and before.boot_id == boot_id else "",
        )
        self._stage.note(
            "verdict",
            {"node": node, "boot_id": boot_id, "instance_id": machine.instance_id, "verdict": verdict.to_json()},
        )

    def boots(self, node: str, instance_id: str) -> bool:
        """A launched machine has booted and takes the name over."""
        if not self.instances[instance_id].is_alive:
            return False
        for trouble in list(self._by_node[node].troubles):
            self._over(node, trouble)
        is_bad = self._stage.chance.random() < self._stage.mix.bad_replacements
        self._by_node[node] = Machine(instance_id=instance_id, is_bad=is_bad)
        self._alive_again(node)
        return True

    def reboots(self, node: str) -> None:
        """It was told to reboot."""
        machine = self._by_node[node]
        self.goes_silent(node, machine.instance_id)
        self._stage.agenda.later(self._stage.around(self._stage.mix.reboot_s), lambda: self._is_up(node, machine))

    def _is_up(self, node: str, machine: Machine) -> bool:
        if machine is not self._by_node[node]:
            return False
        machine.boot += 1
        for trouble in list(machine.troubles):
            if trouble.kind.fault == "switch" or self._stage.chance.random() < trouble.kind.reboot_cures:
                self._over(node, trouble)
        self._alive_again(node)
        return True

    def validates(self, node: str, key: str, suite: str) -> None:
        """Its agent is asked to run the checks; once for each key."""
        if key in self._asked:
            return
        self._asked.add(key)
        machine = self._by_node[node]
        self.agents[node] = dataclasses.replace(self.agents[node], validating=key)
        self._stage.agenda.later(
            self._stage.around(self._stage.mix.deep_s), lambda: self._answers(node, machine, key, suite)
        )

    def _answers(self, node: str, machine: Machine, key: str, suite: str) -> bool:
        if machine is not self._by_node[node] or not machine.is_alive:
            return False
        passed = not machine.is_bad and not any(t.kind.is_actionable for t in machine.troubles)
        told = {"key": key, "suite": suite, "passed": passed, "gave_way_to": ""}
        boot_id = f"{machine.instance_id}-{machine.boot}"
        self._stage.note("validated", {**told, "node": node, "instance_id": machine.instance_id, "boot_id": boot_id})
        self.agents[node] = dataclasses.replace(self.agents[node], validating="")
        return True

    def answers_reset(self, node: str, key: str) -> bool:
        """Its agent tells how the reset of the GPUs went."""
        machine = self._by_node[node]
        if not machine.is_alive:
            return False
        for trouble in list(machine.troubles):
            if self._stage.chance.random() < trouble.kind.reset_cures:
                self._over(node, trouble)
        self._stage.note("gpu_reset", {"node": node, "key": key, "ok": True, "said": "the GPUs were reset"})
        self._speaks(node)
        return True

    def is_repaired(self, node: str) -> None:
        """Somebody looked at it and mended it."""
        machine = self._by_node[node]
        for trouble in list(machine.troubles):
            self._over(node, trouble)
        machine.is_bad = machine.is_lemon = False
        machine.boot += 1
        self._alive_again(node)
