"""EC2 by boto3, imported only when a client is made: the rest of the controller starts without it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from nodewatch.errors import CapacityError, Ec2Error
from nodewatch.model.cluster import Instance

NODE_TAG = "nodewatch:node"
CLUSTER_TAG = "nodewatch:cluster"

# EC2's words for "not now": the same request may succeed later (field notes 8, ParallelCluster's list).
_CAPACITY_CODES = frozenset(
    {
        "InsufficientInstanceCapacity",
        "InsufficientHostCapacity",
        "InsufficientReservedInstanceCapacity",
        "InsufficientCapacity",
        "MaxSpotInstanceCountExceeded",
        "SpotMaxPriceTooLow",
        "RequestLimitExceeded",
        "InstanceLimitExceeded",
    }
)
_GONE_CODES = frozenset({"InvalidInstanceID.NotFound"})


class Ec2:
    """One region's EC2. Credentials, region and endpoint come from boto3's usual places."""

    def __init__(self, *, cluster: str = "", deadline_s: float = 20.0, client: Any = None) -> None:
        """Only instances tagged `nodewatch:cluster` = `cluster` are seen and made, all that bear a node name when it is empty.

        `client` is a ready boto3 EC2 client, for tests with botocore's Stubber. Raises Ec2Error without boto3.
        """
        self._cluster = cluster
        self._client = client if client is not None else _make_client(deadline_s)

    def instances(self) -> dict[str, Instance]:
        """The instances that bear a Slurm node name in their tag `nodewatch:node`, terminated ones of late included.

        Raises Ec2Error unless every page was read: half a list would make living machines look gone.
        """
        found: dict[str, Instance] = {}
        filters = [{"Name": "tag-key", "Values": [NODE_TAG]}]
        if self._cluster:
            filters.append({"Name": f"tag:{CLUSTER_TAG}", "Values": [self._cluster]})
        with _translated("list the instances"):
            pages = self._client.get_paginator("describe_instances").paginate(Filters=filters)
            for page in pages:
                for reservation in page["Reservations"]:
                    for item in reservation["Instances"]:
                        instance = _parse(item)
                        found[instance.instance_id] = instance
        return found

    def launch(self, *, template: str, subnet_id: str | None, tags: Mapping[str, str], token: str) -> Instance:
        """See effects.perform.Ec2Control."""
        if self._cluster:
            tags = {**tags, CLUSTER_TAG: self._cluster}
        request: dict[str, Any] = {
            "LaunchTemplate": {"LaunchTemplateName": template, "Version": "$Default"},
            "MinCount": 1,
            "MaxCount": 1,
            "ClientToken": token,
            "TagSpecifications": [
                {"ResourceType": "instance", "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}
            ],
        }
        if subnet_id is not None:
            request["SubnetId"] = subnet_id
        with _translated(f"launch an instance from the launch template {template}"):
            return _parse(self._client.run_instances(**request)["Instances"][0])

    def terminate(self, instance_id: str) -> None:
        """See effects.perform.Ec2Control."""
        try:
            with _translated(f"terminate {instance_id}"):
                self._client.terminate_instances(InstanceIds=[instance_id])
        except Ec2Error as error:
            if error.code not in _GONE_CODES:
                raise


def _make_client(deadline_s: float) -> Any:
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ImportError as error:
        raise Ec2Error(
            "boto3 is not installed: install the package nodewatch-controller, or `pip install boto3`"
        ) from error
    try:
        return boto3.client(
            "ec2",
            # The engine retries by its own rules and writes each try down; boto3's silent retries would hide them.
            config=Config(connect_timeout=5, read_timeout=deadline_s, retries={"total_max_attempts": 1}),
        )
    except (BotoCoreError, ValueError) as error:
        raise Ec2Error(f"no EC2 client could be made: {error}") from error


@contextmanager
def _translated(doing: str) -> Iterator[None]:
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError

    try:
        yield
    except ClientError as error:
        detail = error.response.get("Error", {})
        code, message = str(detail.get("Code", "")), str(detail.get("Message", ""))
        kind = CapacityError if code in _CAPACITY_CODES else Ec2Error
        raise kind(f"EC2 refused to {doing}: {code}: {message}", code=code) from error
    except BotoCoreError as error:
        raise Ec2Error(f"EC2 could not be asked to {doing}: {error}") from error
    except (ResponseParserError, KeyError, IndexError, TypeError) as error:
        # A proxy's page for one. ResponseParserError is no BotoCoreError.
        raise Ec2Error(
            f"EC2 was asked to {doing}, and what answered is not EC2: {str(error).splitlines()[0]}"
        ) from error


def _parse(item: Mapping[str, Any]) -> Instance:
    tags = {tag["Key"]: tag["Value"] for tag in item.get("Tags", ())}
    return Instance(
        instance_id=item["InstanceId"],
        state=item["State"]["Name"],
        private_ip=item.get("PrivateIpAddress", ""),
        node=tags.get(NODE_TAG, ""),
        tags=tags,
    )
