"""The sender against controllers that are away, odd or broken."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nodewatch.agent.sender import Link, Sender
from nodewatch.agent.spool import Spool
from nodewatch.clients.munge import Munge
from nodewatch.errors import ChannelError

from .world import FakeController, until


class Raw:
    """A server that answers every connection with the same bytes, then closes."""

    def __init__(self, answer: bytes) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._answer = answer
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(65536)
                connection.sendall(self._answer)

    def close(self) -> None:
        self._listener.close()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"", "does not answer"),
        (b"SSH-2.0-OpenSSH\r\n", "does not answer"),
        (
            b"HTTP/1.1 403 Forbidden\r\nContent-Length: 8\r\n\r\nwho's it",
            "refused the message with status 403: who's it",
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "is no answer"),
        (b'HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n{"v":2}', "update one"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5000000\r\n\r\n" + b"x" * 1_100_000, "does not answer"),
    ],
)
def test_an_odd_controller_is_one_sentence(answer: bytes, said: str) -> None:
    server = Raw(answer)
    link = Link(server.url, seal=lambda payload: payload.decode(), timeout_s=2.0)
    try:
        with pytest.raises(ChannelError, match=said) as caught:
            link.post({"v": 1})
        assert "\n" not in str(caught.value)
    finally:
        link.close()
        server.close()


def test_a_controller_that_says_nothing_times_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        link = Link(f"http://127.0.0.1:{silent.getsockname()[1]}", seal=lambda payload: payload.decode(), timeout_s=0.3)
        began = time.monotonic()
        with pytest.raises(ChannelError, match="does not answer"):
            link.post({"v": 1})
        assert time.monotonic() - began < 1.0
        link.close()


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., tuple[Sender, Spool]]]:
    made: list[Sender] = []

    def build(url: str, seal: Callable[[bytes], str], heartbeat_s: float = 0.2) -> tuple[Sender, Spool]:
        spool = Spool(tmp_path / "spool.jsonl", boot_id="b", max_bytes=1_000_000, now=1.0)
        got: list[Any] = []
        sender = Sender(
            link=Link(url, seal=seal, timeout_s=2.0),
            spool=spool,
            describe=lambda: {"v": 1, "node": "n1", "verdict": {"state": "healthy"}},
            heartbeat_s=heartbeat_s,
            on_requests=got.extend,
        )
        made.append(sender)
        return sender, spool

    yield build
    for sender in made:
        sender.stop()
        if sender.is_alive():
            sender.join(5)


def test_heartbeats_and_a_new_event_at_once(
    make: Callable[..., tuple[Sender, Spool]], controller: FakeController, munge: Munge
) -> None:
    sender, spool = make(controller.url, munge.encode, 0.3)
    sender.start()
    until(lambda: len(controller.messages) >= 3, what="three heartbeats")
    time.sleep(0.05)
    began = time.monotonic()
    event_id = spool.append("verdict", 1.0, {})
    sender.wake()
    until(lambda: event_id in controller.received_at, what="the event")
    assert controller.received_at[event_id] - began < 0.15
    until(lambda: spool.depth == 0, what="acceptance")


def test_many_events_go_in_several_messages_without_a_pause(
    make: Callable[..., tuple[Sender, Spool]], controller: FakeController, munge: Munge
) -> None:
    sender, spool = make(controller.url, munge.encode, 30.0)
    given = [spool.append("verdict", 1.0, {"n": n}) for n in range(450)]
    sender.start()
    until(lambda: spool.depth == 0, what="an empty spool")
    assert [event["id"] for event in controller.events] == given


def test_a_controller_that_comes_late_gets_everything(make: Callable[..., tuple[Sender, Spool]], munge: Munge) -> None:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    sender, spool = make(f"http://127.0.0.1:{port}", munge.encode)
    given = [spool.append("verdict", 1.0, {"n": n}) for n in range(3)]
    sender.start()
    until(lambda: sender.failures >= 2, what="two failures")
    assert sender.error is not None
    late = FakeController(munge, port=port)
    try:
        until(lambda: spool.depth == 0, what="an empty spool")
        assert [event["id"] for event in late.events] == given
        assert sender.failures == 0
    finally:
        late.close()


def test_a_bug_does_not_end_the_thread(make: Callable[..., tuple[Sender, Spool]], controller: FakeController) -> None:
    calls: list[int] = []

    def seal(_: bytes) -> str:
        calls.append(1)
        raise ZeroDivisionError

    sender, _ = make(controller.url, seal)
    sender.start()
    until(lambda: len(calls) >= 2, what="a second try")
    assert sender.is_alive()


def test_a_munged_that_is_away_keeps_the_events(
    make: Callable[..., tuple[Sender, Spool]], controller: FakeController, tmp_path: Path
) -> None:
    sender, spool = make(controller.url, Munge(socket=tmp_path / "nowhere").encode)
    spool.append("verdict", 1.0, {})
    assert sender.send_once() is False
    assert spool.depth == 1
    assert "munged cannot be reached" in (sender.error or "")
