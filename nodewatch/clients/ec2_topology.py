"""Where in EC2's network instances are (DescribeInstanceTopology)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nodewatch.clients.ec2_errors import translated
from nodewatch.clients.s3 import make_client

_AT_ONCE = 100
"""Instance ids of one request (EC2 API reference)."""


def network_nodes(instance_ids: Sequence[str], *, client: Any = None) -> dict[str, tuple[str, ...]]:
    """The network nodes above each running instance, from the top down; those of which EC2 says nothing are absent.

    `client` is a ready boto3 EC2 client. Raises Ec2Error unless every page was read.
    """
    made = client if client is not None else make_client("ec2", 20.0)
    found: dict[str, tuple[str, ...]] = {}
    ids = sorted(instance_ids)
    with translated("describe the topology"):
        for start in range(0, len(ids), _AT_ONCE):
            request: dict[str, Any] = {"InstanceIds": ids[start : start + _AT_ONCE]}
            while True:
                answer = made.describe_instance_topology(**request)
                for item in answer["Instances"]:
                    found[item["InstanceId"]] = tuple(item.get("NetworkNodes", ()))
                if not answer.get("NextToken"):
                    break
                request["NextToken"] = answer["NextToken"]
    return found
