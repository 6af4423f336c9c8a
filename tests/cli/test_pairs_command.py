"""`nodewatch check-pairs` as a process, asking a real engine over its real socket."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from nodewatch.cli.pairs import exit_code, render
from nodewatch.controller.operators import OperatorServer
from nodewatch.controller.questions import Questions
from nodewatch.testing import World

Serve = Callable[..., Path]


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "nodewatch.cli", *map(str, arguments)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """A socket on which a world answers; it moves on ten seconds with each question."""
    servers: list[OperatorServer] = []

    def start(world: World, *, may_act: bool = True) -> Path:
        questions = Questions(
            world.engine,
            may_act={os.getuid()} if may_act else set(),
            problems=list,
            clock=world.clock,
            wake=lambda: None,
        )

        def answer(question: Mapping[str, Any], uid: int) -> Mapping[str, Any]:
            told = questions.answer(question, uid)
            world.run(seconds=10)
            return told

        path = tmp_path / "controller.sock"
        servers.append(OperatorServer(path, answer))
        threading.Thread(target=servers[-1].serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return path

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def ready(nodes: int = 6) -> World:
    world = World(nodes=nodes, spares=0)
    world.run(seconds=3)
    return world


def test_the_culprit_is_named_with_its_evidence(serve: Serve) -> None:
    world = ready()
    world.slow_link("n2")
    done = run("check-pairs", "n[1-6]", "--socket", serve(world))
    assert done.returncode == 1
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert any(line.startswith("n1 - n2 1 slow 17179869184 146.1 389") for line in lines)
    assert "n2 CULPRIT" in lines
    assert "n1 good" in lines
    assert "n2 is the one" in lines[-1]
    assert "running: " in done.stderr


def test_all_good_as_json(serve: Serve) -> None:
    done = run("check-pairs", "n1", "n2", "--json", "--socket", serve(ready(2)))
    assert done.returncode == 0
    told = json.loads(done.stdout)
    assert told["nodes"] == {"n1": "good", "n2": "good"}
    assert [run["result"] for run in told["runs"]] == ["good"]
    assert done.stderr == ""


def test_not_waited_for_and_withdrawn(serve: Serve) -> None:
    world = ready()
    world.submit(nodes=6, auto_resume=None)
    world.run(seconds=2)
    socket = serve(world)
    assert run("check-pairs", "n[1-4]", "--no-wait", "--socket", socket).stdout == (
        "asked for a pair test of n1, n2, n3, n4\n"
    )
    assert run("check-pairs", "n1", "--withdraw", "--socket", socket).stdout == "withdrawn: n1, n2, n3, n4\n"
    assert run("check-pairs", "n1", "--withdraw", "--socket", socket).stdout == "withdrawn: nothing was under way\n"


@pytest.mark.parametrize(
    ("nodes", "says"),
    [
        ("n1", "n1 alone is no pair"),
        ("n[1-9]", "no node n7, n8, n9 is known"),
        ("n[1-", "is no hostlist"),
    ],
)
def test_what_cannot_be_asked_is_one_sentence(serve: Serve, nodes: str, says: str) -> None:
    done = run("check-pairs", nodes, "--socket", serve(ready()))
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_who_may_not_act_is_told(serve: Serve) -> None:
    done = run("check-pairs", "n[1-2]", "--socket", serve(ready(), may_act=False))
    assert done.returncode == 2
    assert "may look and not act" in done.stderr


def test_exit_codes_and_a_test_that_is_gone() -> None:
    assert exit_code({"nodes": {"n1": "good", "n2": "untold"}}) == 2
    assert exit_code({"nodes": {"n1": "culprit", "n2": "untold"}}) == 1
    assert exit_code({"nodes": {}}) == 2
    assert render({"runs": [], "nodes": {}, "why": "the test was withdrawn"}) == "the test was withdrawn"
