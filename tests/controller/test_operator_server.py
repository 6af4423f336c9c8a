"""The socket where the operator's commands ask, with what comes that is no question."""

from __future__ import annotations

import json
import socket
import stat
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from nodewatch.controller.operators import OperatorServer


def answer(question: Mapping[str, Any], _uid: int) -> Mapping[str, Any]:
    return {"asked": question["ask"], "path": Path("/a")} if question.get("ask") != "other" else {"error": "no"}


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "run" / "controller.sock"
    server = OperatorServer(path, answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield path
    server.shutdown()
    server.server_close()
    thread.join(5)


def ask(path: Path, line: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        connection.connect(str(path))
        connection.sendall(line)
        connection.shutdown(socket.SHUT_WR)
        with connection.makefile("rb") as stream:
            return stream.readline()


def test_a_question(path: Path) -> None:
    assert json.loads(ask(path, b'{"ask":"status"}\n')) == {"asked": "status", "path": "/a"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o666, "anyone on the machine may ask"


@pytest.mark.parametrize(
    "line",
    [b"", b"\n", b"garbage\n", b"[]\n", b"17\n", b"null\n", b"{}\n", b"\xff\n", b"[" * 60_000 + b"\n", b"x" * 70_000],
)
def test_garbage_gets_an_answer_and_does_no_harm(path: Path, line: bytes) -> None:
    got = ask(path, line)
    assert got.endswith(b"\n")
    assert json.loads(got)["error"].startswith("not a question that this release knows: ")
    assert json.loads(ask(path, b'{"ask":"status"}\n'))["asked"] == "status"


def test_one_who_leaves_without_a_word_does_no_harm(path: Path) -> None:
    for _ in range(20):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
    assert json.loads(ask(path, b'{"ask":"status"}\n'))["asked"] == "status"


def test_a_socket_that_a_dead_controller_left_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "controller.sock"
    OperatorServer(path, answer).server_close()
    assert path.exists()
    server = OperatorServer(path, answer)
    threading.Thread(target=server.handle_request, daemon=True).start()
    assert json.loads(ask(path, b'{"ask":"status"}\n'))["asked"] == "status"
    server.server_close()
