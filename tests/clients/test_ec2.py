"""EC2: against botocore's Stubber, which checks each request against EC2's own model, and once against moto's server."""

from __future__ import annotations

import http.client
import http.server
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

boto3 = pytest.importorskip("boto3", reason="boto3 is not installed")

from botocore.config import Config  # noqa: E402 (after the check that it is there)
from botocore.stub import Stubber  # noqa: E402

from nodewatch.clients.ec2 import Ec2  # noqa: E402
from nodewatch.errors import CapacityError, Ec2Error  # noqa: E402
from nodewatch.model.cluster import Instance  # noqa: E402


def client(endpoint: str | None = None) -> Any:
    return boto3.client(
        "ec2",
        region_name="us-east-1",
        aws_access_key_id="x",
        aws_secret_access_key="x",
        endpoint_url=endpoint,
        config=Config(connect_timeout=10, read_timeout=60, retries={"total_max_attempts": 1}),
    )


@pytest.fixture
def stub() -> Iterator[tuple[Stubber, Any]]:
    made = client()
    with Stubber(made) as stubber:
        yield stubber, made
        stubber.assert_no_pending_responses()


def described(instance_id: str, node: str = "n1", state: str = "running", **more: Any) -> dict[str, Any]:
    tags = [{"Key": "nodewatch:node", "Value": node}, {"Key": "Name", "Value": node}]
    return {"InstanceId": instance_id, "State": {"Name": state}, "Tags": tags, **more}


NODE_FILTER = {"Name": "tag-key", "Values": ["nodewatch:node"]}


def test_all_pages_are_read(stub: tuple[Stubber, Any]) -> None:
    stubber, made = stub
    first = [{"Instances": [described("i-1", PrivateIpAddress="10.0.0.1"), described("i-2", "n2", "terminated")]}]
    stubber.add_response("describe_instances", {"Reservations": first, "NextToken": "more"}, {"Filters": [NODE_FILTER]})
    stubber.add_response(
        "describe_instances",
        {"Reservations": [{"Instances": [described("i-3", "n3", "pending")]}, {"Instances": []}]},
        {"Filters": [NODE_FILTER], "NextToken": "more"},
    )
    found = Ec2(client=made).instances()

    assert {key: (i.node, i.state, i.private_ip) for key, i in found.items()} == {
        "i-1": ("n1", "running", "10.0.0.1"),
        "i-2": ("n2", "terminated", ""),
        "i-3": ("n3", "pending", ""),
    }


def test_a_page_that_fails_makes_the_whole_list_unknown(stub: tuple[Stubber, Any]) -> None:
    stubber, made = stub
    stubber.add_response(
        "describe_instances", {"Reservations": [{"Instances": [described("i-1")]}], "NextToken": "more"}
    )
    stubber.add_client_error("describe_instances", "InternalError", "try again")
    with pytest.raises(Ec2Error, match="refused to list the instances: InternalError: try again"):
        Ec2(client=made).instances()


def test_only_this_cluster_is_seen_and_tagged(stub: tuple[Stubber, Any]) -> None:
    stubber, made = stub
    ours = {"Name": "tag:nodewatch:cluster", "Values": ["east"]}
    stubber.add_response("describe_instances", {"Reservations": []}, {"Filters": [NODE_FILTER, ours]})
    tags = [{"Key": "nodewatch:node", "Value": "n1"}, {"Key": "nodewatch:cluster", "Value": "east"}]
    expected = launch_request(TagSpecifications=[{"ResourceType": "instance", "Tags": tags}])
    stubber.add_response("run_instances", {"Instances": [described("i-1", state="pending")]}, expected)
    ec2 = Ec2(cluster="east", client=made)

    assert ec2.instances() == {}
    ec2.launch(template="compute", subnet_id=None, tags={"nodewatch:node": "n1"}, token="n1.gpu.100:replace:launch:1")


def launch_request(**more: Any) -> dict[str, Any]:
    return {
        "LaunchTemplate": {"LaunchTemplateName": "compute", "Version": "$Default"},
        "MinCount": 1,
        "MaxCount": 1,
        "ClientToken": "n1.gpu.100:replace:launch:1",
        "TagSpecifications": [{"ResourceType": "instance", "Tags": [{"Key": "nodewatch:node", "Value": "n1"}]}],
        **more,
    }


@pytest.mark.parametrize("subnet_id", [None, "subnet-1"])
def test_what_a_launch_asks_for(stub: tuple[Stubber, Any], subnet_id: str | None) -> None:
    stubber, made = stub
    expected = launch_request(**({"SubnetId": subnet_id} if subnet_id else {}))
    answer = {"Instances": [described("i-7", state="pending", PrivateIpAddress="10.0.0.7")]}
    stubber.add_response("run_instances", answer, expected)
    launched = Ec2(client=made).launch(
        template="compute", subnet_id=subnet_id, tags={"nodewatch:node": "n1"}, token="n1.gpu.100:replace:launch:1"
    )
    assert launched == Instance(
        instance_id="i-7",
        state="pending",
        private_ip="10.0.0.7",
        node="n1",
        tags={"nodewatch:node": "n1", "Name": "n1"},
    )
    assert launched.is_alive


def launch(ec2: Ec2) -> Instance:
    return ec2.launch(template="compute", subnet_id=None, tags={"nodewatch:node": "n1"}, token="t")


@pytest.mark.parametrize(
    ("code", "is_capacity"),
    [
        ("InsufficientInstanceCapacity", True),
        ("InsufficientHostCapacity", True),
        ("InsufficientReservedInstanceCapacity", True),
        ("MaxSpotInstanceCountExceeded", True),
        ("SpotMaxPriceTooLow", True),
        ("ReservationCapacityExceeded", True),
        ("InsufficientFreeAddressesInSubnet", True),
        ("RequestLimitExceeded", True),
        ("InvalidLaunchTemplateName.NotFoundException", False),
        ("InvalidParameterValue", False),
    ],
)
def test_only_no_capacity_is_worth_waiting_for(stub: tuple[Stubber, Any], code: str, is_capacity: bool) -> None:
    stubber, made = stub
    stubber.add_client_error("run_instances", code, "because")
    with pytest.raises(Ec2Error) as caught:
        launch(Ec2(client=made))
    assert isinstance(caught.value, CapacityError) == is_capacity
    assert caught.value.code == code
    assert str(caught.value) == (f"EC2 refused to launch an instance from the launch template compute: {code}: because")


def test_an_instance_that_is_gone_is_terminated_already(stub: tuple[Stubber, Any]) -> None:
    stubber, made = stub
    stubber.add_response("terminate_instances", {"TerminatingInstances": []}, {"InstanceIds": ["i-1"]})
    stubber.add_client_error("terminate_instances", "InvalidInstanceID.NotFound", "it does not exist")
    stubber.add_client_error("terminate_instances", "OperationNotPermitted", "termination protection")
    ec2 = Ec2(client=made)
    ec2.terminate("i-1")
    ec2.terminate("i-1")
    with pytest.raises(Ec2Error, match="refused to terminate i-1: OperationNotPermitted"):
        ec2.terminate("i-1")


def test_a_refused_connection() -> None:
    with socket.socket() as taken:
        # Bound and not listening: nobody else gets the port, and connecting to it is refused.
        taken.bind(("127.0.0.1", 0))
        ec2 = Ec2(client=client(f"http://127.0.0.1:{taken.getsockname()[1]}"))
        for ask in (ec2.instances, lambda: launch(ec2), lambda: ec2.terminate("i-1")):
            with pytest.raises(Ec2Error, match="EC2 could not be asked to ") as caught:
                ask()
            assert not isinstance(caught.value, CapacityError)
            assert caught.value.code == ""


@pytest.mark.parametrize("page", [b"<<html>", b"<html></html>", b""])
def test_an_answer_that_is_not_ec2s(page: bytes) -> None:
    class Garbage(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Garbage) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        ec2 = Ec2(client=client(f"http://127.0.0.1:{server.server_port}"))
        for ask in (ec2.instances, lambda: launch(ec2)):
            with pytest.raises(Ec2Error, match="what answered is not EC2: "):
                ask()
        server.shutdown()


def test_without_a_region_no_client_is_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(Ec2Error, match="no EC2 client could be made: You must specify a region"):
        Ec2()


def test_a_launch_from_a_template_on_a_server() -> None:
    server_module = pytest.importorskip("moto.server", reason="moto's server is not installed")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        # Every server of one process shows the same account: what other tests have launched goes first.
        connection = http.client.HTTPConnection(host, port, timeout=20)
        connection.request("POST", "/moto-api/reset")
        assert connection.getresponse().status == 200
        made = client(f"http://{host}:{port}")
        image = made.describe_images()["Images"][0]["ImageId"]
        made.create_launch_template(
            LaunchTemplateName="compute", LaunchTemplateData={"ImageId": image, "InstanceType": "p5.48xlarge"}
        )
        ec2 = Ec2(cluster="east", client=made)
        tags = {"nodewatch:node": "n1", "Name": "n1"}
        launched = ec2.launch(template="compute", subnet_id=None, tags=tags, token="n1.gpu.100:replace:launch:1")

        assert launched.is_alive
        assert launched.private_ip
        assert set(ec2.instances()) == {launched.instance_id}
        assert ec2.instances()[launched.instance_id].node == "n1"
        assert Ec2(cluster="west", client=made).instances() == {}

        ec2.terminate(launched.instance_id)
        assert ec2.instances()[launched.instance_id].state in ("shutting-down", "terminated")
        ec2.terminate("i-0123456789abcdef0")
        with pytest.raises(Ec2Error, match="launch template none"):
            ec2.launch(template="none", subnet_id=None, tags=tags, token="t")
    finally:
        server.stop()
