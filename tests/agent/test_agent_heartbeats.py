"""The agent's process and the heartbeats of a job on its node: they reach the controller, and it says where a rank is."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .world import FakeController, Node, until

USER = 12345
"""Whose job it is where the tests run as root, as the agent does."""


@pytest.fixture
def rank() -> Iterator[subprocess.Popen[bytes]]:
    """A process of the job's user."""
    extra: dict[str, Any] = {"user": USER, "group": USER, "extra_groups": []} if os.geteuid() == 0 else {}
    process = subprocess.Popen(["sleep", "600"], cwd="/", **extra)
    yield process
    process.kill()
    process.wait(10)


def beat(directory: Path, step: int, pid: int) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "0"
    data = {"v": 1, "rank": 0, "step": step, "t": 1.0, "step_s": 0.4, "phase": "step", "pid": pid}
    with path.open("r+b" if path.exists() else "wb") as file:
        os.pwrite(file.fileno(), json.dumps(data).encode().ljust(256), 0)
    if os.geteuid() == 0:
        os.chown(directory, USER, USER)
        os.chown(path, USER, USER)


def told(controller: FakeController) -> list[int]:
    """The steps that the controller has been told, in order."""
    jobs = [message["jobs"] for message in list(controller.messages) if message.get("jobs")]
    return [job["17"]["ranks"]["0"]["step"] for job in jobs]


def test_the_controller_hears_of_steps_and_may_ask_where_a_rank_is(
    node: Node, controller: FakeController, rank: subprocess.Popen[bytes]
) -> None:
    spy = node.home / "spy"
    spy.write_text("#!/bin/sh\nprintf 'Thread 0x1 (idle): \"MainThread\"\\n    wait (%s.py:1)\\n' $2\n")
    spy.chmod(0o755)
    node.settings |= {"controller_url": controller.url, "stack_dump": [str(spy), "--pid"]}
    heartbeats = node.home / "jobs" / "17" / "heartbeats"
    beat(heartbeats, 5, rank.pid)
    node.start()
    until(lambda: told(controller) == [5], what="the first step")
    beat(heartbeats, 6, rank.pid)
    until(lambda: told(controller) == [5, 6], seconds=15, what="the next step")
    (heartbeats / "1").symlink_to("/etc/passwd")
    os.mkfifo(heartbeats / "2")
    controller.requests = [{"kind": "stack_dump", "key": "job:17:hang", "job": 17}]
    answer = until(lambda: controller.of_kind("stack_dump"), what="the stacks")[0]
    assert (answer["key"], answer["job"], len(answer["dumps"])) == ("job:17:hang", 17, 1)
    assert f"wait ({rank.pid}.py:1)" in answer["dumps"][0]["stacks"]
    assert node.ask("prolog", id="18")["allow"] is True


def test_without_jobs_nothing_is_told_and_a_question_is_answered(node: Node, controller: FakeController) -> None:
    node.settings |= {"controller_url": controller.url}
    controller.requests = [{"kind": "stack_dump", "key": "job:17:hang", "job": 17}]
    node.start()
    answer = until(lambda: controller.of_kind("stack_dump"), what="the answer")[0]
    assert answer["said"] == "this node has no heartbeats of the job"
    assert told(controller) == []
