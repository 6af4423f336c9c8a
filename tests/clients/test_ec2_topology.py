"""DescribeInstanceTopology in batches and pages, by botocore's Stubber."""

from __future__ import annotations

import pytest

boto3 = pytest.importorskip("boto3", reason="boto3 is not installed")

from botocore.stub import Stubber  # noqa: E402 (after the check that it is there)

from nodewatch.clients.ec2_topology import network_nodes  # noqa: E402
from nodewatch.errors import Ec2Error  # noqa: E402


def test_all_batches_and_pages_are_read_and_half_an_answer_is_none() -> None:
    made = boto3.client("ec2", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
    ids = [f"i-{number:03d}" for number in range(101)]
    placed = {"InstanceId": "i-000", "NetworkNodes": ["nn-a", "nn-b"]}
    with Stubber(made) as stub:
        stub.add_response(
            "describe_instance_topology", {"Instances": [placed], "NextToken": "more"}, {"InstanceIds": ids[:100]}
        )
        stub.add_response(
            "describe_instance_topology", {"Instances": []}, {"InstanceIds": ids[:100], "NextToken": "more"}
        )
        last = {"InstanceId": "i-100", "NetworkNodes": ["nn-a", "nn-c"]}
        stub.add_response("describe_instance_topology", {"Instances": [last]}, {"InstanceIds": ids[100:]})
        assert network_nodes(ids, client=made) == {"i-000": ("nn-a", "nn-b"), "i-100": ("nn-a", "nn-c")}
        stub.add_client_error("describe_instance_topology", "UnauthorizedOperation", "no")
        with pytest.raises(Ec2Error, match="allow ec2:DescribeInstanceTopology"):
            network_nodes(["i-000"], client=made)
        stub.assert_no_pending_responses()
