"""EC2's edge in front of moto: tokens, capacity, and what the watcher is told."""

import json
import socket
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode

import pytest

from nodewatch.lab.edge import Edge


class Moto:
    """Answers each launch with the next number."""

    def __init__(self) -> None:
        self.launched = 0
        self.last: dict[str, list[str]] = {}

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        self.last = parse_qs(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])).decode())
        if self.last["Action"][0] in ("RunInstances", "CreateFleet"):
            self.launched += 1
        start_response("200 OK", [("Content-Type", "text/xml")])
        return [f"<answer>{self.launched}</answer>".encode()]


class Caller:
    """Sends EC2 queries to an edge."""

    def __init__(self, root: Path) -> None:
        self.moto = Moto()
        self.no_capacity = root / "no-capacity"
        self.subnet = root / "subnet"
        self.events = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.events.bind(str(root / "events"))
        self.events.settimeout(0.1)
        self.edge = Edge(self.moto, no_capacity=self.no_capacity, subnet=self.subnet, events=root / "events")

    def __call__(self, **words: str) -> tuple[str, str]:
        body = urlencode(words).encode()
        told: list[str] = []
        environ = {"wsgi.input": BytesIO(body), "CONTENT_LENGTH": str(len(body))}
        payload = b"".join(self.edge(environ, lambda status, headers: told.append(status)))
        return told[0], payload.decode()


@pytest.fixture
def call(tmp_path: Path) -> Caller:
    return Caller(tmp_path)


def test_a_token_seen_before_launches_nothing_more(call: Caller) -> None:
    first = call(Action="RunInstances", ClientToken="case:launch", MinCount="1")
    assert call(Action="RunInstances", ClientToken="case:launch", MinCount="1") == first
    assert call.moto.launched == 1
    assert call(Action="RunInstances", ClientToken="other", MinCount="1") != first


def test_a_token_with_other_parameters_is_refused(call: Caller) -> None:
    call(Action="RunInstances", ClientToken="case:launch", MinCount="1")
    status, text = call(Action="RunInstances", ClientToken="case:launch", MinCount="2")
    assert status.startswith("400")
    assert "IdempotentParameterMismatch" in text
    assert call.moto.launched == 1


def test_launches_without_a_token_are_each_their_own(call: Caller) -> None:
    call(Action="RunInstances", MinCount="1")
    call(Action="RunInstances", MinCount="1")
    assert call.moto.launched == 2


def test_without_capacity_launches_are_refused_and_a_later_try_may_succeed(call: Caller) -> None:
    call.no_capacity.touch()
    status, text = call(Action="RunInstances", ClientToken="case:launch")
    assert status.startswith("500")
    assert "InsufficientInstanceCapacity" in text
    assert "InsufficientInstanceCapacity" in call(Action="CreateFleet")[1]
    assert call(Action="DescribeInstances")[0].startswith("200")
    assert call.moto.launched == 0
    call.no_capacity.unlink()
    assert call(Action="RunInstances", ClientToken="case:launch")[0].startswith("200")
    assert call.moto.launched == 1


def test_a_launch_by_template_lands_in_the_subnet(call: Caller) -> None:
    call.subnet.write_text("subnet-7\n")
    call(Action="RunInstances", MinCount="1")
    assert call.moto.last["SubnetId"] == ["subnet-7"]


def test_the_watcher_hears_of_changes_and_of_nothing_else(call: Caller) -> None:
    call(Action="DescribeInstances")
    with pytest.raises(TimeoutError):
        call.events.recv(1000)
    call(**{"Action": "RebootInstances", "InstanceId.1": "i-1", "InstanceId.2": "i-2"})
    assert json.loads(call.events.recv(1000)) == {"action": "RebootInstances", "instances": ["i-1", "i-2"]}


def test_a_watcher_that_is_gone_does_not_fail_the_call(call: Caller) -> None:
    call.events.close()
    assert call(Action="TerminateInstances")[0].startswith("200")
