"""EC2 by boto3, imported only when a client is made: the rest of the controller starts without it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nodewatch.clients import ec2_group
from nodewatch.clients.ec2_errors import translated
from nodewatch.clients.ec2_fleet import fleet_request, launched_by
from nodewatch.clients.ec2_launch import CLUSTER_TAG, NODE_TAG, launch_request, parse_instance, tag_list
from nodewatch.clients.ec2_statuses import statuses
from nodewatch.clients.s3 import make_client
from nodewatch.errors import Ec2Error
from nodewatch.model.cluster import Instance

_GONE_CODES = frozenset({"InvalidInstanceID.NotFound"})
_NO_LATEST_CODES = frozenset({"UnsupportedOperation", "InvalidParameterCombination", "InvalidParameterValue"})


class Ec2:
    """One region's EC2. Credentials, region and endpoint come from boto3's usual places."""

    def __init__(
        self, *, cluster: str = "", deadline_s: float = 20.0, client: Any = None, autoscaling: Any = None
    ) -> None:
        """Only instances tagged `nodewatch:cluster` = `cluster` are seen and made, all that bear a node name when it is empty.

        `client` is a ready boto3 EC2 client, for tests with botocore's Stubber. Raises Ec2Error without boto3.
        """
        self._cluster = cluster
        self._deadline_s = deadline_s
        self._client = client if client is not None else make_client("ec2", deadline_s)
        self._autoscaling = autoscaling

    def instances(self) -> dict[str, Instance]:
        """The instances that bear a Slurm node name in their tag `nodewatch:node`, terminated ones of late included.

        Raises Ec2Error unless every page was read: half a list would make living machines look gone.
        """
        filters = [{"Name": "tag-key", "Values": [NODE_TAG]}]
        if self._cluster:
            filters.append({"Name": f"tag:{CLUSTER_TAG}", "Values": [self._cluster]})
        return self._described("list the instances", filters)

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
        """See effects.perform.Ec2Control."""
        request = launch_request(
            template=template,
            version=version,
            subnet_id=subnet_id,
            tags=self._tags(tags),
            token=token,
            reservation=reservation,
            market=market,
        )
        try:
            with translated(f"launch an instance from the launch template {template}"):
                return parse_instance(self._client.run_instances(**request)["Instances"][0])
        except Ec2Error as error:
            if error.code != "IdempotentParameterMismatch":
                raise
            # The token has launched something already, with what was configured then. That is our machine.
            filters = [{"Name": "client-token", "Values": [token]}]
            found = self._described("find what was launched before", filters)
            alive = [instance for _, instance in sorted(found.items()) if instance.is_alive]
            if not alive:
                raise
            return alive[0]

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
        """See effects.perform.Ec2Control."""
        tags = self._tags(tags)
        request = fleet_request(
            template=template, version=version, subnets=subnets, types=types, tags=tags, token=token
        )
        with translated(f"launch an instance by a fleet from the launch template {template}"):
            instance_id = launched_by(self._client.create_fleet(**request))
        unseen = Instance(instance_id=instance_id, state="pending", node=tags.get(NODE_TAG, ""), tags=dict(tags))
        try:
            found = self._described(
                "describe what the fleet launched", [{"Name": "instance-id", "Values": [instance_id]}]
            )
        except Ec2Error:
            # It is launched: its address comes with the next list.
            return unseen
        return found.get(instance_id, unseen)

    def replace_in_asg(
        self, *, asg: str, old: str, since: float, taken: Sequence[str], tags: Mapping[str, str]
    ) -> Instance:
        """See effects.perform.Ec2Control."""
        if self._autoscaling is None:
            self._autoscaling = make_client("autoscaling", self._deadline_s)
        return ec2_group.replace(
            self._client, self._autoscaling, asg=asg, old=old, since=since, taken=taken, tags=self._tags(tags)
        )

    def statuses(self, instance_ids: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Status checks and scheduled events of instances: see clients/ec2_statuses.py. Raises Ec2Error."""
        return statuses(self._client, instance_ids)

    def terminate(self, instance_id: str) -> None:
        """See effects.perform.Ec2Control."""
        try:
            with translated(f"terminate {instance_id}"):
                self._client.terminate_instances(InstanceIds=[instance_id])
        except Ec2Error as error:
            if error.code not in _GONE_CODES:
                raise

    def reboot(self, instance_id: str) -> None:
        """See effects.perform.Ec2Control. EC2 answers at once and goes on describing the instance as running."""
        with translated(f"reboot {instance_id}"):
            self._client.reboot_instances(InstanceIds=[instance_id])

    def quarantine(self, instance_id: str, *, tags: Mapping[str, str], stops: bool) -> None:
        """See effects.perform.Ec2Control."""
        try:
            with translated(f"put {instance_id} into quarantine"):
                # The new tags first: without any it would be a machine of which nobody knows whose it is.
                self._client.create_tags(Resources=[instance_id], Tags=tag_list(tags))
                self._client.delete_tags(Resources=[instance_id], Tags=[{"Key": NODE_TAG}])
                if stops:
                    self._client.stop_instances(InstanceIds=[instance_id])
        except Ec2Error as error:
            if error.code not in _GONE_CODES:
                raise

    def console(self, instance_id: str) -> str:
        """See effects.perform.Ec2Control."""
        doing = f"give the console of {instance_id}"
        try:
            with translated(doing):
                answer = self._client.get_console_output(InstanceId=instance_id, Latest=True)
        except Ec2Error as error:
            # Xen instances give their console of the last boot alone.
            if error.code not in _NO_LATEST_CODES:
                raise
            with translated(doing):
                answer = self._client.get_console_output(InstanceId=instance_id)
        return str(answer.get("Output") or "")

    def report(self, instance_id: str, *, reason_code: str, text: str) -> None:
        """See effects.perform.Ec2Control."""
        with translated(f"take a report about {instance_id}"):
            self._client.report_instance_status(
                Instances=[instance_id], Status="impaired", ReasonCodes=[reason_code], Description=text[:1000]
            )

    def _described(self, doing: str, filters: Sequence[Mapping[str, Any]]) -> dict[str, Instance]:
        found: dict[str, Instance] = {}
        with translated(doing):
            for page in self._client.get_paginator("describe_instances").paginate(Filters=list(filters)):
                for reservation in page["Reservations"]:
                    for item in reservation["Instances"]:
                        instance = parse_instance(item)
                        found[instance.instance_id] = instance
        return found

    def _tags(self, tags: Mapping[str, str]) -> Mapping[str, str]:
        return {**tags, CLUSTER_TAG: self._cluster} if self._cluster else tags
