"""Carry out one action. Everything here is idempotent: doing it twice has the effect of doing it once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from nodewatch.effects import evidence
from nodewatch.errors import Ec2Error
from nodewatch.model import actions as act
from nodewatch.model.cluster import Instance, SlurmJob, SlurmNode
from nodewatch.policy import capacity


class SlurmControl(Protocol):
    """What the effects need of Slurm, and no more, so that a fake is small and pyslurm can stand behind it.

    Every method raises SlurmError with one sentence when Slurm refuses or does not answer in time.
    """

    def drain(self, node: str, reason: str) -> None:
        """Take `node` out of service with `reason`."""

    def mark_down(self, node: str, reason: str) -> None:
        """Declare `node` down; Slurm ends or requeues what ran there."""

    def set_reason(self, node: str, reason: str, *, was: str) -> None:
        """Put `reason` in the place of the reason `was`, the node's state unchanged; nothing where that stands no more."""

    def resume(self, node: str) -> None:
        """Clear drain, fail and down."""

    def set_address(self, node: str, address: str) -> None:
        """Let slurmctld reach `node` at `address`."""

    def reboot(self, node: str, reason: str) -> None:
        """Reboot `node` as soon as it is empty, and leave it drained."""

    def requeue(self, job: int | str) -> None:
        """Put a job back into the queue, running or ended: a job id, or `<array job>_<task>`."""

    def release(self, job: int | str) -> None:
        """Take Slurm's own hold off a pending job: a job id, or `<array job>_<task>`."""

    def expedite(
        self,
        job: int | str,
        *,
        priority: int,
        exclude: Sequence[str],
        comment: str,
        require: Sequence[str] | None = None,
    ) -> None:
        """Let a pending job start now: a job id, or `<array job>_<task>`."""

    def reserve(self, name: str, nodes: Sequence[str], minutes: int) -> None:
        """Keep nodes from all jobs, those running there left alone, for at most so long."""

    def unreserve(self, name: str) -> None:
        """Delete a reservation; one that is gone already is no error."""


class Ec2Control(Protocol):
    """What the effects need of EC2. Methods raise Ec2Error, or CapacityError where waiting may help."""

    def launch(
        self,
        *,
        template: str,
        subnet_id: str | None,
        tags: Mapping[str, str],
        token: str,
        version: str = "$Default",
        reservation: str = "",
        market: str = "",
    ) -> Instance:
        """Start one instance; the same token gives the same instance.

        `reservation` is the capacity reservation or block that it must come from; `market` is EC2's MarketType, `spot` or
        `capacity-block`, empty for on demand.
        """

    def launch_fleet(
        self,
        *,
        template: str,
        version: str,
        subnets: Sequence[str],
        types: Sequence[str],
        tags: Mapping[str, str],
        token: str,
    ) -> Instance:
        """Start one instance of the first of `types` that any of `subnets` has; the same token gives the same answer."""

    def replace_in_asg(
        self, *, asg: str, old: str, since: float, taken: Sequence[str], tags: Mapping[str, str]
    ) -> Instance:
        """Have an Auto Scaling group replace `old`; the machine that it launched after `since`, tagged with `tags`.

        Raises CapacityError with the code `ReplacementPending` until there is one.
        """

    def terminate(self, instance_id: str) -> None:
        """End an instance; one that is gone already is no error."""

    def reboot(self, instance_id: str) -> None:
        """Have EC2 reboot an instance."""

    def quarantine(self, instance_id: str, *, tags: Mapping[str, str], stops: bool) -> None:
        """Take our node name off an instance, write `tags` on it, and stop it if `stops`; one that is gone is no error."""

    def console(self, instance_id: str) -> str:
        """The last of what an instance wrote to its console, empty where EC2 has nothing of it."""

    def report(self, instance_id: str, *, reason_code: str, text: str) -> None:
        """Tell EC2 that an instance is impaired."""


class SlurmClient(SlurmControl, Protocol):
    """Slurm, read and changed."""

    def nodes(self) -> Mapping[str, SlurmNode]:
        """All nodes by name, or SlurmError."""

    def jobs(self) -> Mapping[int, SlurmJob]:
        """All jobs that slurmctld knows by id, or SlurmError."""


class Ec2Client(Ec2Control, Protocol):
    """EC2, read and changed."""

    def instances(self) -> Mapping[str, Instance]:
        """The instances that bear a node name, by id, or Ec2Error."""


def client_token(key: str) -> str:
    """`key` as EC2's ClientToken: at most 64 ASCII characters (EC2 API reference, idempotency), else its digest."""
    if len(key) <= 64 and key.isascii():
        return key
    return hashlib.sha256(key.encode()).hexdigest()


def tags_of(node: str, key: str, lifecycle_script: str) -> dict[str, str]:
    """What is written on the machine that is launched for `node` under `key`."""
    tags = {"nodewatch:node": node, "nodewatch:action": key, "Name": node}
    return {**tags, "nodewatch:lifecycle-script": lifecycle_script} if lifecycle_script else tags


def perform(
    action: act.Action, slurm: SlurmControl, ec2: Ec2Control | None, store: evidence.EvidenceStore | None = None
) -> dict[str, Any]:
    """Carry out `action` and return what came of it, for the journal.

    Raises SlurmError or Ec2Error, each with the sentence that the operator reads; Ec2Error as well for an EC2 action
    without a client, which a case begun before the launch template was taken out of the configuration still asks for.
    """
    match action:
        case act.Drain(node=node, reason=reason):
            slurm.drain(node, reason)
        case act.HoldSpare(node=node, reason=reason, is_down=is_down):
            if is_down:
                # Draining does not clear DOWN, and a spare that is down stands in for nobody.
                slurm.resume(node)
            slurm.drain(node, reason)
        case act.MarkDown(node=node, reason=reason):
            slurm.mark_down(node, reason)
        case act.AnswerReason(node=node, reason=reason, was=was):
            slurm.set_reason(node, reason, was=was)
        case act.ReleaseSpare(node=node) | act.ReturnToService(node=node):
            slurm.resume(node)
        case act.Repoint(node=node, address=address):
            slurm.set_address(node, address)
        case act.Reboot(node=node, reason=reason):
            slurm.reboot(node, reason)
        case act.Requeue(job_id=job_id, slurm_id=slurm_id):
            slurm.requeue(slurm_id or job_id)
        case act.Expedite(job_id=job_id, priority=priority, exclude=exclude, comment=comment, require=require):
            job = action.slurm_id or job_id
            if action.releases:
                slurm.release(job)
            slurm.expedite(job, priority=priority, exclude=exclude, comment=comment, require=require)
        case act.KeepNodes(name=name, nodes=nodes, minutes=minutes):
            slurm.reserve(name, nodes, minutes)
        case act.FreeNodes(name=name):
            slurm.unreserve(name)
        case act.Launch():
            instance = launch(action, _needed(ec2))
            return {"instance_id": instance.instance_id, "private_ip": instance.private_ip}
        case act.KeepEvidence():
            return evidence.keep(action, ec2, store)
        case act.Quarantine(instance_id=instance_id, node=node, case_id=case_id, stops=stops):
            tags = {"nodewatch:quarantined": case_id, "Name": f"quarantined {node}"}
            _needed(ec2).quarantine(instance_id, tags=tags, stops=stops)
        case act.ReportInstance(instance_id=instance_id, reason_code=reason_code, text=text):
            _needed(ec2).report(instance_id, reason_code=reason_code, text=text)
        case act.RebootInstance(instance_id=instance_id):
            _needed(ec2).reboot(instance_id)
        case act.Terminate(instance_id=instance_id):
            _needed(ec2).terminate(instance_id)
        case act.DeepCheck() | act.ResetGpu():
            # The agent takes it with its next message: the ledger holds the request from now on.
            pass
    return {}


def launch(action: act.Launch, ec2: Ec2Control) -> Instance:
    """A machine from the source that `action` names. Raises Ec2Error, or CapacityError where that source has none."""
    tags = tags_of(action.node, action.key, action.lifecycle_script)
    token = client_token(action.key)
    source = capacity.parse(action.source or capacity.Kind.LAUNCH_TEMPLATE.value)
    if source.kind is capacity.Kind.ASG:
        return ec2.replace_in_asg(
            asg=source.name, old=action.replaces, since=action.since, taken=action.taken, tags=tags
        )
    if source.kind is capacity.Kind.FLEET:
        return ec2.launch_fleet(
            template=action.launch_template,
            version=action.version,
            subnets=action.subnets or ((action.subnet_id,) if action.subnet_id else ()),
            types=[name for name in source.name.split(",") if name],
            tags=tags,
            token=token,
        )
    market = {capacity.Kind.SPOT: "spot", capacity.Kind.BLOCK: "capacity-block"}.get(source.kind, "")
    return ec2.launch(
        template=action.launch_template,
        subnet_id=action.subnet_id,
        tags=tags,
        token=token,
        version=action.version,
        reservation=source.name if source.kind in (capacity.Kind.RESERVATION, capacity.Kind.BLOCK) else "",
        market=market,
    )


def _needed(ec2: Ec2Control | None) -> Ec2Control:
    if ec2 is None:
        raise Ec2Error("EC2 is not configured: give the node's group a launch_template in controller.toml")
    return ec2
