"""The hardware behind Slurm's node names and the agents on it, as `World` has them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from nodewatch.model.health import Finding, Remedy, Severity, StandingFinding, Verdict, state_of

if TYPE_CHECKING:
    from nodewatch.testing.world import World


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
        self.findings, self.unknown = (), ()
        self._changed()

    def crashes(self) -> None:
        """The machine stops dead."""
        self.alive = False
        self.world.slurm.set_responding(self.name, False)

    def reboots(self) -> None:
        """It reboots, and nobody asked it to."""
        if self.alive:
            self.crashes()
            self.boot += 1
            self.boots_at = self.world.clock() + self.world.boot_s

    def forgets(self) -> None:
        """What its agent has not been able to tell is lost."""
        self.pending = []

    def cannot_tell(self, check: str) -> None:
        """A check of its agent has no answer."""
        self.unknown = ((check, "the driver does not answer"),)
        self._changed()

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


def live(world: World) -> None:
    """Machines end, boot, reboot and are replaced, as Slurm and EC2 were told."""
    for name, machine in list(world.machines.items()):
        alive = world.ec2.alive(name)
        if machine.instance_id not in alive and machine.alive:
            machine.crashes()
        newest = [i for i in alive if i not in (machine.instance_id,)]
        if newest and not machine.alive:
            world.machines[name] = Machine(
                world=world,
                name=name,
                instance_id=newest[-1],
                since=world.clock(),
                alive=False,
                boots_at=world.clock() + world.boot_s,
                deep_checks=world.next_deep_checks,
            )
            world.machines[name].has_gpus(*world.next_hardware)
        if machine.boots_at and not machine.alive and world.clock() >= machine.boots_at:
            machine.alive, machine.boots_at = True, 0.0
            world.slurm.set_responding(name, True)
        while machine.instance_id in world.ec2.rebooted[world.ec2_reboots_seen.get(name, 0) :]:
            world.ec2_reboots_seen[name] = len(world.ec2.rebooted)
            machine.alive, machine.boot = False, machine.boot + 1
            machine.boots_at = world.clock() + world.boot_s if world.ec2_reboots else 0.0
            world.slurm.set_responding(name, False)
        node = world.slurm.node_table[name]
        if "REBOOT_ISSUED" in node.states and machine.alive and not node.is_busy:
            machine.alive, machine.boot, machine.boots_at = False, machine.boot + 1, world.clock() + world.boot_s
            machine.boots_at = machine.boots_at if world.slurm_reboots else 0.0
            machine.findings = machine.findings if world.survives_reboot else ()
            machine.since = world.clock()
            world.slurm.node_table[name] = dataclasses.replace(node, states=node.states - {"REBOOT_ISSUED"})
            world.slurm.set_responding(name, False)


def speak(world: World) -> None:
    """Each living agent tells its verdict and what has not been accepted yet, and does what it is asked."""
    for name, machine in sorted(world.machines.items()):
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
        accepted, requests, _ = world.engine.receive_agent(message)
        if not world.drop_events:
            machine.pending = [event for event in machine.pending if event["id"] not in accepted]
        for request in requests:
            if request["kind"] == "reset_gpu":
                _reset_gpu(world, machine, request["key"])
            elif request["kind"] == "save_now":
                world.asked_to_save.add((request["job"], request["key"], name))
            elif request["kind"] == "bad_nodes":
                world.bad_nodes[request["job"], name] = tuple(request["nodes"])
            elif request["kind"] == "stack_dump":
                _dump_stacks(world, machine, request["key"], request["job"])
            elif request["kind"] == "validate" and request["key"] not in machine.answered:
                machine.answered.add(request["key"])
                running = [str(j.job_id) for j in world.slurm.job_table.values() if j.is_running and name in j.nodes]
                job = running[0] if running and request["suite"] == "deep" else ""
                machine.sequence += 1
                machine.pending.append(
                    {
                        "id": f"{machine.instance_id}-{machine.boot}:{machine.sequence}",
                        "at": world.clock(),
                        "kind": "validated",
                        "key": request["key"],
                        "suite": request["suite"],
                        "passed": None if job else (machine.deep_checks if not machine.findings else False),
                        "gave_way_to": job,
                    }
                )


def _dump_stacks(world: World, machine: Machine, key: str, job_id: int) -> None:
    if key in machine.answered or machine.dumps is None:
        return
    machine.answered.add(key)
    machine.sequence += 1
    machine.pending.append(
        {
            "id": f"{machine.instance_id}-{machine.boot}:{machine.sequence}",
            "at": world.clock(),
            "kind": "stack_dump",
            "key": key,
            "job": job_id,
            "dumps": machine.dumps(job_id),
            "said": "",
        }
    )


def _reset_gpu(world: World, machine: Machine, key: str) -> None:
    if key in machine.answered or world.reset_works is None:
        return
    machine.answered.add(key)
    if world.reset_works:
        machine.findings = tuple(s for s in machine.findings if s.finding.family != "gpu")
        machine.since = world.clock()
    machine.sequence += 1
    machine.pending.append(
        {
            "id": f"{machine.instance_id}-{machine.boot}:{machine.sequence}",
            "at": world.clock(),
            "kind": "gpu_reset",
            "key": key,
            "ok": world.reset_works,
            "said": "the GPUs were reset" if world.reset_works else "the driver refused",
        }
    )
