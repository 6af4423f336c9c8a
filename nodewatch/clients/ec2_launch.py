"""What RunInstances is asked for, and an instance as EC2 describes it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nodewatch.model.cluster import Instance

NODE_TAG = "nodewatch:node"
CLUSTER_TAG = "nodewatch:cluster"


def tag_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Tags in EC2's form."""
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def launch_request(
    *,
    template: str,
    version: str,
    subnet_id: str | None,
    tags: Mapping[str, str],
    token: str,
    reservation: str,
    market: str,
) -> dict[str, Any]:
    """The parameters of RunInstances for one instance."""
    request: dict[str, Any] = {
        "LaunchTemplate": {"LaunchTemplateName": template, "Version": version},
        "MinCount": 1,
        "MaxCount": 1,
        "ClientToken": token,
        "TagSpecifications": [{"ResourceType": "instance", "Tags": tag_list(tags)}],
    }
    if subnet_id is not None:
        request["SubnetId"] = subnet_id
    if reservation:
        request["CapacityReservationSpecification"] = {
            "CapacityReservationTarget": {"CapacityReservationId": reservation}
        }
    if market:
        request["InstanceMarketOptions"] = {"MarketType": market}
    if market == "spot":
        # A persistent request would launch a second machine by itself after the first was taken away.
        request["InstanceMarketOptions"]["SpotOptions"] = {
            "SpotInstanceType": "one-time",
            "InstanceInterruptionBehavior": "terminate",
        }
    return request


def parse_instance(item: Mapping[str, Any]) -> Instance:
    """An instance of DescribeInstances or RunInstances. Raises KeyError for another shape."""
    tags = {tag["Key"]: tag["Value"] for tag in item.get("Tags", ())}
    return Instance(
        instance_id=item["InstanceId"],
        state=item["State"]["Name"],
        private_ip=item.get("PrivateIpAddress", ""),
        node=tags.get(NODE_TAG, ""),
        tags=tags,
    )
