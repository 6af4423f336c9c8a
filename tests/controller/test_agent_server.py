"""Where agents report, over real HTTP; the seal is opened by a function that is handed in."""

from __future__ import annotations

import http.client
import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from nodewatch.controller.agents import AgentServer
from nodewatch.controller.metrics import EngineCollector
from nodewatch.errors import ChannelError
from nodewatch.testing import World

GOOD = {
    "v": 1,
    "node": "n2",
    "boot_id": "i-0002-0",
    "instance_id": "i-0002",
    "agent": "0.1.0",
    "sent_at": 1.0,
    "events": [{"id": "b:1", "at": 1700000000.0, "kind": "hello"}],
    "verdict": {"state": "healthy", "since": 1.0},
}


def unseal(credential: str) -> tuple[bytes, int, int]:
    """`uid:payload`, in the place of MUNGE."""
    uid, separator, payload = credential.partition(":")
    if not separator or not uid.isdigit():
        raise ChannelError("a MUNGE credential was refused: it is no MUNGE credential")
    return payload.encode(), int(uid), 0


class Controller:
    """The server before the engine of a world, as the daemon wires them."""

    def __init__(self) -> None:
        self.world = World()
        registry = CollectorRegistry()
        registry.register(EngineCollector(self.world.engine))
        self.server = AgentServer(
            ("127.0.0.1", 0),
            decode=unseal,
            uids={0, 64030},
            receive=self._receive,
            metrics=lambda: generate_latest(registry),
        )

    def _receive(self, message: dict[str, Any]) -> dict[str, Any]:
        accepted, requests, _ = self.world.engine.receive_agent(message)
        return {"v": 1, "accepted": accepted, "requests": requests}

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.server.server_port, timeout=5)

    def post(self, body: str | bytes, path: str = "/v1/events", **headers: str) -> tuple[int, str]:
        connection = self.connect()
        connection.request("POST", path, body=body, headers=headers)
        response = connection.getresponse()
        text = response.read().decode()
        connection.close()
        return response.status, text


@pytest.fixture
def controller() -> Iterator[Controller]:
    made = Controller()
    thread = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join(5)


def sealed(message: object, uid: int = 0) -> str:
    return f"{uid}:{json.dumps(message)}"


@pytest.mark.parametrize("uid", [0, 64030])
def test_a_message_is_taken(controller: Controller, uid: int) -> None:
    status, text = controller.post(sealed(GOOD, uid))
    assert status == 200
    assert json.loads(text) == {"v": 1, "accepted": ["b:1"], "requests": []}
    assert controller.world.engine.ledger.agents["n2"].instance_id == "i-0002"


def test_many_messages_on_one_connection(controller: Controller) -> None:
    connection = controller.connect()
    for _ in range(3):
        connection.request("POST", "/v1/events", body=sealed({**GOOD, "events": []}))
        assert connection.getresponse().read() == b'{"v": 1, "accepted": [], "requests": []}'
    connection.close()


def test_another_user_is_not_believed(controller: Controller) -> None:
    status, text = controller.post(sealed(GOOD, uid=1000))
    assert (status, text) == (403, "uid 1000 may not report: only root and SlurmUser\n")
    assert controller.world.engine.ledger.agents == {}


@pytest.mark.parametrize("body", ["", "garbage", b"\xff\0\xfe"])
def test_what_is_not_sealed_is_refused(controller: Controller, body: str | bytes) -> None:
    status, text = controller.post(body)
    assert (status, text) == (401, "a MUNGE credential was refused: it is no MUNGE credential\n")


BAD: list[Any] = [
    [],
    17,
    None,
    {},
    {**GOOD, "verdict": {"state": "splendid", "since": 1}},
    {**GOOD, "verdict": {"state": "healthy", "since": None}},
    {**GOOD, "verdict": 17},
    {**GOOD, "events": None},
    {**GOOD, "events": 17},
    {**GOOD, "events": [17]},
    {**GOOD, "events": [{}]},
    {**GOOD, "events": [{"id": "b:1", "kind": "verdict"}]},
    {**GOOD, "events": [{"id": "b:1", "kind": "verdict", "verdict": {}}]},
    {**GOOD, "events": [{"id": "b:1", "kind": "validated"}]},
    {**GOOD, "events": [{"id": "b:1", "kind": "hello", "at": "yesterday"}]},
    {**GOOD, "events": [{"id": "b:1", "kind": "hello", "at": None}]},
    {**GOOD, "events": [{"id": "b:1", "kind": "hello", "at": float("nan")}]},
    {**GOOD, "events": [{"id": "b:1", "kind": "hello"}, {"id": "b:2"}]},
]


@pytest.mark.parametrize("message", BAD, ids=lambda message: json.dumps(message)[-60:])
def test_what_is_no_message_is_refused_and_nothing_of_it_is_taken(controller: Controller, message: Any) -> None:
    status, text = controller.post(sealed(message))
    assert status == 400
    assert text.startswith("not a message of version 1: ")
    assert [record.kind for record in controller.world.journal.records] == ["started"]


@pytest.mark.parametrize("payload", ["", "{", "[" * 100_000])
def test_what_is_no_json_is_refused(controller: Controller, payload: str) -> None:
    status, text = controller.post(f"0:{payload}")
    assert status == 400
    assert text.startswith("not a message of version 1: ")


def raw(controller: Controller, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", controller.server.server_port), timeout=5) as connection:
        connection.sendall(request)
        with connection.makefile("rb") as stream:
            return stream.read()


@pytest.mark.parametrize("length", [b"4194305", b"99999999999999999999", b"-1", b"x", b"\xb2", b""])
def test_what_is_too_long_or_of_no_length_is_refused_unread(controller: Controller, length: bytes) -> None:
    answer = raw(controller, b"POST /v1/events HTTP/1.1\r\nHost: h\r\nContent-Length: " + length + b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"at most 4 MiB" in answer


def test_no_length_at_all(controller: Controller) -> None:
    assert raw(controller, b"POST /v1/events HTTP/1.1\r\nHost: h\r\n\r\n").startswith(b"HTTP/1.1 413 ")


def test_a_journal_that_is_full_keeps_the_agents_events_with_the_agent(controller: Controller) -> None:
    controller.world.journal.full = True
    status, text = controller.post(sealed(GOOD))
    assert (status, text) == (503, "the journal cannot be written: no space left on device\n")

    controller.world.journal.full = False
    status, text = controller.post(sealed(GOOD))
    assert json.loads(text)["accepted"] == ["b:1"]
    assert [record.kind for record in controller.world.journal.records] == ["started", "hello"]


def test_other_pages_are_not_there(controller: Controller) -> None:
    assert controller.post(sealed(GOOD), path="/v2/events")[0] == 404
    answer = raw(controller, b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 18\r\n\r\nGET /metrics HTTP/1")
    assert answer.count(b"HTTP/1.1 ") == 1, "the body must not be taken for a request"
    connection = controller.connect()
    connection.request("GET", "/")
    assert connection.getresponse().status == 404
    connection.close()


def test_the_metrics_page(controller: Controller) -> None:
    controller.post(sealed({**GOOD, "events": []}))
    controller.world.run(seconds=3)
    controller.world.node("n2").loses_gpu()
    controller.world.run(seconds=5)
    connection = controller.connect()
    connection.request("GET", "/metrics")
    response = connection.getresponse()
    lines = response.read().decode().splitlines()
    connection.close()

    assert response.status == 200
    assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert 'nodewatch_source_readable{source="slurm"} 1.0' in lines
    assert 'nodewatch_nodes{state="failed"} 1.0' in lines
    assert 'nodewatch_nodes{state="healthy"} 3.0' in lines
    assert 'nodewatch_actions_total{action="drain",outcome="done"} 1.0' in lines
    assert any(line.startswith('nodewatch_open_cases{family="gpu",rung="replace"') for line in lines)


def test_a_hundred_agents_at_once(controller: Controller) -> None:
    statuses: list[int] = []

    def report(index: int) -> None:
        message = {**GOOD, "node": f"n{index}", "events": [{"id": f"n{index}:1", "at": 1.0, "kind": "hello"}]}
        statuses.append(controller.post(sealed(message))[0])

    threads = [threading.Thread(target=report, args=(index,)) for index in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert statuses == [200] * 100
    assert len(controller.world.engine.ledger.agents) == 100
    numbers = [record.number for record in controller.world.journal.records]
    assert numbers == list(range(1, 102))


def test_an_agent_that_goes_away_is_one_line_and_no_stack(
    controller: Controller, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level("INFO")
    for _ in range(20):
        connection = socket.create_connection(("127.0.0.1", controller.server.server_port), timeout=5)
        # Leaves with a reset instead of a farewell.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.sendall(b"POST /v1/events HTTP/1.1\r\nHost: h\r\nContent-Length: 99\r\n\r\n0:")
        connection.close()
    assert controller.post(sealed(GOOD))[0] == 200
    end = time.monotonic() + 5
    while "ended early" not in caplog.text:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert "Traceback" not in caplog.text + capfd.readouterr().err
