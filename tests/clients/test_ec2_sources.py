"""EC2's other sources of machines, quarantine, console and reports: requests against EC2's own model by botocore's Stubber."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Any

import pytest

boto3 = pytest.importorskip("boto3", reason="boto3 is not installed")

from botocore.stub import ANY, Stubber  # noqa: E402 (after the check that it is there)

from nodewatch.clients.ec2 import Ec2  # noqa: E402
from nodewatch.clients.s3 import S3  # noqa: E402
from nodewatch.errors import CapacityError, Ec2Error  # noqa: E402

TAGS = {"nodewatch:node": "n1", "nodewatch:action": "k"}
TAG_LIST = [{"Key": "nodewatch:node", "Value": "n1"}, {"Key": "nodewatch:action", "Value": "k"}]
LAUNCH = {
    "LaunchTemplate": {"LaunchTemplateName": "compute", "Version": "7"},
    "MinCount": 1,
    "MaxCount": 1,
    "ClientToken": "t",
    "TagSpecifications": [{"ResourceType": "instance", "Tags": TAG_LIST}],
}
CR = "cr-0123456789abcdef0"


def stubbed(service: str) -> Iterator[tuple[Stubber, Any]]:
    made = boto3.client(service, region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
    with Stubber(made) as stubber:
        yield stubber, made
        stubber.assert_no_pending_responses()


@pytest.fixture
def ec2() -> Iterator[tuple[Stubber, Any]]:
    yield from stubbed("ec2")


@pytest.fixture
def autoscaling() -> Iterator[tuple[Stubber, Any]]:
    yield from stubbed("autoscaling")


@pytest.fixture
def s3() -> Iterator[tuple[Stubber, Any]]:
    yield from stubbed("s3")


def described(instance_id: str, *, tags: bool = True, launched: float = 1000.0, **more: Any) -> dict[str, Any]:
    return {
        "InstanceId": instance_id,
        "State": {"Name": "running"},
        "Tags": TAG_LIST if tags else [],
        "LaunchTime": datetime.datetime.fromtimestamp(launched, tz=datetime.UTC),
        **more,
    }


def listed(*items: dict[str, Any]) -> dict[str, Any]:
    return {"Reservations": [{"Instances": list(items)}]}


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (
            {"reservation": CR},
            {"CapacityReservationSpecification": {"CapacityReservationTarget": {"CapacityReservationId": CR}}},
        ),
        (
            {"reservation": CR, "market": "capacity-block"},
            {
                "CapacityReservationSpecification": {"CapacityReservationTarget": {"CapacityReservationId": CR}},
                "InstanceMarketOptions": {"MarketType": "capacity-block"},
            },
        ),
        (
            {"market": "spot"},
            {
                "InstanceMarketOptions": {
                    "MarketType": "spot",
                    "SpotOptions": {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"},
                }
            },
        ),
    ],
)
def test_a_launch_into_a_reservation_a_block_or_the_spot_market(
    ec2: tuple[Stubber, Any], asked: dict[str, str], expected: dict[str, Any]
) -> None:
    stubber, made = ec2
    stubber.add_response("run_instances", {"Instances": [described("i-7")]}, {**LAUNCH, **expected})
    launched = Ec2(client=made).launch(template="compute", subnet_id=None, tags=TAGS, token="t", version="7", **asked)
    assert launched.instance_id == "i-7"


def test_a_token_that_launched_something_else_before_gives_that_machine(ec2: tuple[Stubber, Any]) -> None:
    stubber, made = ec2
    stubber.add_client_error("run_instances", "IdempotentParameterMismatch", "other parameters")
    token = {"Filters": [{"Name": "client-token", "Values": ["t"]}]}
    stubber.add_response("describe_instances", listed(described("i-7")), token)
    stubber.add_client_error("run_instances", "IdempotentParameterMismatch", "other parameters")
    stubber.add_response("describe_instances", listed(), token)
    client = Ec2(client=made)
    assert client.launch(template="compute", subnet_id=None, tags=TAGS, token="t").instance_id == "i-7"
    with pytest.raises(Ec2Error, match="IdempotentParameterMismatch"):
        client.launch(template="compute", subnet_id=None, tags=TAGS, token="t")


@pytest.mark.parametrize(
    ("message", "named"),
    [
        ("You are not authorized to perform this operation.", "ec2:RunInstances"),
        ("User: x is not authorized to perform: iam:PassRole on resource: y", "iam:PassRole"),
        ("User: x is not authorized to perform: ec2:CreateTags on resource: y", "ec2:CreateTags"),
    ],
)
def test_a_permission_that_is_missing_is_named(ec2: tuple[Stubber, Any], message: str, named: str) -> None:
    stubber, made = ec2
    stubber.add_client_error("run_instances", "UnauthorizedOperation", message)
    with pytest.raises(Ec2Error) as caught:
        Ec2(client=made).launch(template="compute", subnet_id=None, tags=TAGS, token="t")
    assert str(caught.value) == (
        "EC2 does not let the controller launch an instance from the launch template compute: "
        f"allow {named} in the IAM role of this machine (UnauthorizedOperation)"
    )
    assert not isinstance(caught.value, CapacityError)


def fleet(client: Any, *, types: tuple[str, ...] = ("p5.48xlarge", "p5e.48xlarge")) -> Any:
    return Ec2(client=client).launch_fleet(
        template="compute", version="7", subnets=("subnet-a", "subnet-b"), types=types, tags=TAGS, token="t"
    )


FLEET = {
    "Type": "instant",
    "ClientToken": "t",
    "LaunchTemplateConfigs": [
        {
            "LaunchTemplateSpecification": {"LaunchTemplateName": "compute", "Version": "7"},
            "Overrides": [
                {"InstanceType": "p5.48xlarge", "SubnetId": "subnet-a", "Priority": 0.0},
                {"InstanceType": "p5.48xlarge", "SubnetId": "subnet-b", "Priority": 0.0},
                {"InstanceType": "p5e.48xlarge", "SubnetId": "subnet-a", "Priority": 1.0},
                {"InstanceType": "p5e.48xlarge", "SubnetId": "subnet-b", "Priority": 1.0},
            ],
        }
    ],
    "TargetCapacitySpecification": {"TotalTargetCapacity": 1, "DefaultTargetCapacityType": "on-demand"},
    "OnDemandOptions": {
        "AllocationStrategy": "prioritized",
        "CapacityReservationOptions": {"UsageStrategy": "use-capacity-reservations-first"},
    },
    "TagSpecifications": [{"ResourceType": "instance", "Tags": TAG_LIST}],
}


def test_a_fleet_takes_the_first_type_in_any_zone(ec2: tuple[Stubber, Any]) -> None:
    stubber, made = ec2
    stubber.add_response("create_fleet", {"FleetId": "f", "Instances": [{"InstanceIds": ["i-7"]}]}, FLEET)
    by_id = {"Filters": [{"Name": "instance-id", "Values": ["i-7"]}]}
    stubber.add_response("describe_instances", listed(described("i-7", PrivateIpAddress="10.0.0.7")), by_id)
    assert fleet(made).private_ip == "10.0.0.7"


@pytest.mark.parametrize("is_error", [False, True])
def test_what_a_fleet_launched_is_known_before_ec2_shows_it(ec2: tuple[Stubber, Any], is_error: bool) -> None:
    stubber, made = ec2
    stubber.add_response("create_fleet", {"FleetId": "f", "Instances": [{"InstanceIds": ["i-7"]}]})
    if is_error:
        stubber.add_client_error("describe_instances", "RequestLimitExceeded", "slow down")
    else:
        stubber.add_response("describe_instances", listed())
    launched = fleet(made)
    assert (launched.instance_id, launched.private_ip, launched.node) == ("i-7", "", "n1")


@pytest.mark.parametrize(
    ("codes", "code", "is_capacity"),
    [
        (["InsufficientInstanceCapacity", "InsufficientInstanceCapacity"], "InsufficientInstanceCapacity", True),
        (["UnfulfillableCapacity"], "UnfulfillableCapacity", True),
        ([], "UnfulfillableCapacity", True),
        (["InsufficientInstanceCapacity", "InvalidParameterValue"], "InvalidParameterValue", False),
    ],
)
def test_an_empty_fleet_is_a_refusal(ec2: tuple[Stubber, Any], codes: list[str], code: str, is_capacity: bool) -> None:
    stubber, made = ec2
    errors = [{"ErrorCode": name, "ErrorMessage": "because"} for name in codes]
    stubber.add_response("create_fleet", {"FleetId": "f", "Errors": errors, "Instances": []})
    with pytest.raises(Ec2Error) as caught:
        fleet(made)
    assert caught.value.code == code
    assert isinstance(caught.value, CapacityError) == is_capacity


def group(*members: tuple[str, str]) -> dict[str, Any]:
    when = datetime.datetime.fromtimestamp(0, tz=datetime.UTC)
    made = {
        "AutoScalingGroupName": "trainers",
        "MinSize": 0,
        "MaxSize": 9,
        "DesiredCapacity": 2,
        "DefaultCooldown": 0,
        "AvailabilityZones": ["us-east-1a"],
        "HealthCheckType": "EC2",
        "CreatedTime": when,
        "Instances": [
            {
                "InstanceId": instance,
                "LifecycleState": state,
                "AvailabilityZone": "us-east-1a",
                "HealthStatus": "Healthy",
                "ProtectedFromScaleIn": False,
            }
            for instance, state in members
        ],
    }
    return {"AutoScalingGroups": [made]}


def exchange(ec2: Any, autoscaling: Any, *, taken: tuple[str, ...] = ()) -> Any:
    return Ec2(client=ec2, autoscaling=autoscaling).replace_in_asg(
        asg="trainers", old="i-1", since=1000.0, taken=taken, tags=TAGS
    )


def test_a_group_is_told_once_and_its_new_machine_is_named(
    ec2: tuple[Stubber, Any], autoscaling: tuple[Stubber, Any]
) -> None:
    stub, made = ec2
    groups, scaling = autoscaling
    groups.add_response(
        "describe_auto_scaling_groups", group(("i-1", "InService")), {"AutoScalingGroupNames": ["trainers"]}
    )
    groups.add_response(
        "set_instance_health", {}, {"InstanceId": "i-1", "HealthStatus": "Unhealthy", "ShouldRespectGracePeriod": False}
    )
    with pytest.raises(CapacityError) as caught:
        exchange(made, scaling)
    assert caught.value.code == "ReplacementPending"

    groups.add_response("describe_auto_scaling_groups", group(("i-1", "Terminating"), ("i-2", "Pending:Wait")))
    stub.add_response("describe_instances", listed(described("i-2", tags=False, launched=1060.0)), {"Filters": ANY})
    stub.add_response("create_tags", {}, {"Resources": ["i-2"], "Tags": TAG_LIST})
    assert exchange(made, scaling).instance_id == "i-2"


def test_the_machine_that_was_named_before_a_crash_is_named_again(
    ec2: tuple[Stubber, Any], autoscaling: tuple[Stubber, Any]
) -> None:
    stub, made = ec2
    groups, scaling = autoscaling
    groups.add_response("describe_auto_scaling_groups", group(("i-2", "InService"), ("i-3", "InService")))
    free, ours = described("i-2", tags=False, launched=1060.0), described("i-3", launched=1060.0)
    stub.add_response("describe_instances", listed(free, ours), {"Filters": ANY})
    stub.add_response("create_tags", {}, {"Resources": ["i-3"], "Tags": TAG_LIST})
    assert exchange(made, scaling).instance_id == "i-3"


def test_a_machine_of_the_group_that_is_older_or_somebodys_is_not_taken(
    ec2: tuple[Stubber, Any], autoscaling: tuple[Stubber, Any]
) -> None:
    stub, made = ec2
    groups, scaling = autoscaling
    members = group(("i-2", "InService"), ("i-3", "InService"), ("i-4", "InService"))
    groups.add_response("describe_auto_scaling_groups", members)
    other = {**described("i-3", launched=1060.0), "Tags": [{"Key": "nodewatch:node", "Value": "n9"}]}
    by_id = {"Filters": [{"Name": "instance-id", "Values": ["i-2", "i-3"]}]}
    stub.add_response("describe_instances", listed(described("i-2", tags=False, launched=10.0), other), by_id)
    with pytest.raises(CapacityError, match="waiting for the Auto Scaling group trainers"):
        exchange(made, scaling, taken=("i-4",))


def test_a_group_that_is_not_there(ec2: tuple[Stubber, Any], autoscaling: tuple[Stubber, Any]) -> None:
    groups, scaling = autoscaling
    groups.add_response("describe_auto_scaling_groups", {"AutoScalingGroups": []})
    with pytest.raises(Ec2Error, match="there is no Auto Scaling group trainers"):
        exchange(ec2[1], scaling)


def test_quarantine_tags_first_and_takes_the_name_after(ec2: tuple[Stubber, Any]) -> None:
    stubber, made = ec2
    told = [{"Key": "nodewatch:quarantined", "Value": "c"}]
    for stops in (False, True):
        stubber.add_response("create_tags", {}, {"Resources": ["i-1"], "Tags": told})
        stubber.add_response("delete_tags", {}, {"Resources": ["i-1"], "Tags": [{"Key": "nodewatch:node"}]})
        if stops:
            stubber.add_response("stop_instances", {}, {"InstanceIds": ["i-1"]})
        Ec2(client=made).quarantine("i-1", tags={"nodewatch:quarantined": "c"}, stops=stops)
    stubber.add_client_error("create_tags", "InvalidInstanceID.NotFound", "it is gone")
    Ec2(client=made).quarantine("i-1", tags={"nodewatch:quarantined": "c"}, stops=False)


def test_the_console_of_a_machine_without_a_latest_one(ec2: tuple[Stubber, Any]) -> None:
    stubber, made = ec2
    stubber.add_client_error("get_console_output", "UnsupportedOperation", "not on Xen")
    stubber.add_response("get_console_output", {"InstanceId": "i-1"}, {"InstanceId": "i-1"})
    assert Ec2(client=made).console("i-1") == ""
    stubber.add_client_error("get_console_output", "InvalidInstanceID.NotFound", "it is gone")
    with pytest.raises(Ec2Error, match="refused to give the console of i-1"):
        Ec2(client=made).console("i-1")


def test_what_ec2_is_told_and_that_it_reboots(ec2: tuple[Stubber, Any]) -> None:
    stubber, made = ec2
    report = {"Instances": ["i-1"], "Status": "impaired", "ReasonCodes": ["unresponsive"], "Description": "gone"}
    stubber.add_response("report_instance_status", {}, report)
    stubber.add_response("reboot_instances", {}, {"InstanceIds": ["i-1"]})
    Ec2(client=made).report("i-1", reason_code="unresponsive", text="gone")
    Ec2(client=made).reboot("i-1")


def test_evidence_in_s3(s3: tuple[Stubber, Any]) -> None:
    stubber, made = s3
    stubber.add_response(
        "put_object", {}, {"Bucket": "site", "Key": "a/b.json", "Body": b"{}", "ContentType": "application/json"}
    )
    assert S3(client=made).put("site", "a/b.json", b"{}") == "s3://site/a/b.json"
    stubber.add_client_error("put_object", "AccessDenied", "no")
    with pytest.raises(
        Ec2Error, match=r"S3 does not let the controller put a/b\.json .*: allow s3:PutObject in the IAM role"
    ):
        S3(client=made).put("site", "a/b.json", b"{}")


def test_a_machine_from_boot_to_quarantine_on_a_server() -> None:
    server_module = pytest.importorskip("moto.server", reason="moto's server is not installed")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        keys = {"region_name": "us-east-1", "aws_access_key_id": "x", "aws_secret_access_key": "x"}
        made = boto3.client("ec2", endpoint_url=f"http://{host}:{port}", **keys)
        image = made.describe_images()["Images"][0]["ImageId"]
        made.create_launch_template(
            LaunchTemplateName="of-fleets", LaunchTemplateData={"ImageId": image, "InstanceType": "p5.48xlarge"}
        )
        subnets = tuple(subnet["SubnetId"] for subnet in made.describe_subnets()["Subnets"][:2])
        client = Ec2(cluster="of-fleets", client=made)
        launched = client.launch_fleet(
            template="of-fleets", version="$Default", subnets=subnets, types=("p5.48xlarge",), tags=TAGS, token="t"
        )
        assert launched.is_alive
        assert client.instances()[launched.instance_id].private_ip
        client.reboot(launched.instance_id)
        client.console(launched.instance_id)
        client.quarantine(launched.instance_id, tags={"nodewatch:quarantined": "c"}, stops=True)
        assert client.instances() == {}
        kept = made.describe_instances(InstanceIds=[launched.instance_id])["Reservations"][0]["Instances"][0]
        assert {"Key": "nodewatch:quarantined", "Value": "c"} in kept["Tags"]
        assert kept["State"]["Name"] in ("stopping", "stopped")
    finally:
        server.stop()
