"""An Auto Scaling group replaces a machine by itself: it is told that one is unhealthy, and its successor is looked for."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from nodewatch.clients.ec2_errors import translated
from nodewatch.clients.ec2_launch import NODE_TAG, parse_instance, tag_list
from nodewatch.errors import CapacityError, Ec2Error
from nodewatch.model.cluster import Instance

_SERVICE = "Auto Scaling"
_CLOCKS_S = 120.0
"""EC2's launch time and the controller's clock may differ by so much."""
_COMING = ("Pending", "InService")


def replace(
    ec2: Any, autoscaling: Any, *, asg: str, old: str, since: float, taken: Collection[str], tags: Mapping[str, str]
) -> Instance:
    """See effects.perform.Ec2Control.replace_in_asg."""
    with translated(f"describe the group {asg}", service=_SERVICE):
        groups = autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=[asg])["AutoScalingGroups"]
    if not groups:
        raise Ec2Error(
            f"there is no Auto Scaling group {asg}: correct `capacity` in controller.toml", code="NoSuchGroup"
        )
    members = {item["InstanceId"]: item["LifecycleState"] for item in groups[0].get("Instances", ())}
    found = _successor(ec2, asg, members, old, since, taken, tags)
    if found is not None:
        with translated(f"tag {found.instance_id}"):
            ec2.create_tags(Resources=[found.instance_id], Tags=tag_list(tags))
        return found
    if members.get(old, "").startswith("InService"):
        with translated(f"mark {old} unhealthy", service=_SERVICE):
            autoscaling.set_instance_health(InstanceId=old, HealthStatus="Unhealthy", ShouldRespectGracePeriod=False)
    elif not members:
        raise CapacityError(
            f"the Auto Scaling group {asg} has no machines: look at its desired capacity and its activities",
            code="ReplacementPending",
        )
    raise CapacityError(
        f"waiting for the Auto Scaling group {asg} to launch a machine in the place of {old}", code="ReplacementPending"
    )


def _successor(
    ec2: Any,
    asg: str,
    members: Mapping[str, str],
    old: str,
    since: float,
    taken: Collection[str],
    tags: Mapping[str, str],
) -> Instance | None:
    """A machine of the group that bears no node name yet and is newer than the repair; one that we tagged for it first."""
    ids = sorted(key for key, state in members.items() if key != old and state.startswith(_COMING) and key not in taken)
    if not ids:
        return None
    with translated(f"describe the machines of {asg}"):
        pages = ec2.describe_instances(Filters=[{"Name": "instance-id", "Values": ids}])["Reservations"]
        items = [item for reservation in pages for item in reservation["Instances"]]
    for item in items:
        instance = parse_instance(item)
        if instance.tags.get("nodewatch:action") == tags["nodewatch:action"]:
            return instance
    for item in sorted(items, key=lambda item: str(item["InstanceId"])):
        instance = parse_instance(item)
        if NODE_TAG not in instance.tags and item["LaunchTime"].timestamp() >= since - _CLOCKS_S:
            return instance
    return None
