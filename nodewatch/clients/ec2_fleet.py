"""An EC2 Fleet of the type `instant`: several instance types and zones in one synchronous request, for one machine. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nodewatch.clients.ec2_errors import CAPACITY_CODES
from nodewatch.clients.ec2_launch import tag_list
from nodewatch.errors import CapacityError, Ec2Error


def fleet_request(
    *, template: str, version: str, subnets: Sequence[str], types: Sequence[str], tags: Mapping[str, str], token: str
) -> dict[str, Any]:
    """The parameters of CreateFleet. The first type is wanted most, in any of the subnets; then the next."""
    overrides: list[dict[str, Any]] = []
    for priority, kind in enumerate(types or ("",)):
        for subnet in subnets or ("",):
            place: dict[str, Any] = {"InstanceType": kind} if kind else {}
            place |= {"SubnetId": subnet} if subnet else {}
            if place:
                overrides.append({**place, "Priority": float(priority)})
    config: dict[str, Any] = {"LaunchTemplateSpecification": {"LaunchTemplateName": template, "Version": version}}
    if overrides:
        config["Overrides"] = overrides
    return {
        "Type": "instant",
        "ClientToken": token,
        "LaunchTemplateConfigs": [config],
        "TargetCapacitySpecification": {"TotalTargetCapacity": 1, "DefaultTargetCapacityType": "on-demand"},
        "OnDemandOptions": {
            "AllocationStrategy": "prioritized",
            # Paid for already.
            "CapacityReservationOptions": {"UsageStrategy": "use-capacity-reservations-first"},
        },
        "TagSpecifications": [{"ResourceType": "instance", "Tags": tag_list(tags)}],
    }


def launched_by(answer: Mapping[str, Any]) -> str:
    """The instance id of CreateFleet's answer.

    Raises CapacityError, or Ec2Error, for a fleet that stayed empty: EC2 answers 200 and lists the reasons.
    """
    ids = [instance_id for group in answer.get("Instances", ()) for instance_id in group.get("InstanceIds", ())]
    if ids:
        return str(ids[0])
    errors = {str(item.get("ErrorCode", "")): str(item.get("ErrorMessage", "")) for item in answer.get("Errors", ())}
    others = [code for code in errors if code not in CAPACITY_CODES]
    code = (others or list(errors) or ["UnfulfillableCapacity"])[0]
    kind = Ec2Error if others else CapacityError
    told = "; ".join(f"{name}: {text}" for name, text in errors.items()) or "it gave no reason"
    raise kind(f"EC2 launched nothing for the fleet: {told}", code=code)
