"""Stacks are read of the job's own processes, each within its time, and what cannot be read is said."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from nodewatch.agent.stack_dump import MOST_DUMPS, MOST_TEXT, StackDumps
from nodewatch.model.heartbeats import Beat, Phase, dumps_of

SCRIPT = """#!/bin/sh
case $1 in
4711) printf 'Process 4711: python train.py\\nPython v3.11 (/usr/bin/python3)\\n\\n'
      printf 'Thread 0x2 (idle): "worker"\\n    get (queue.py:9)\\n'
      printf 'Thread 0x1 (active): "MainThread"\\n    all_reduce (torch/c10d.py:5)\\n    main (train.py:3)\\n';;
4712) printf 'Error: Failed to find python version from target process\\nStack backtrace:\\n 0: main\\n' >&2; exit 1;;
4713) exec sleep 600;;
*) yes 'Thread 0x1 (active): "MainThread"' | head -c 200000;;
esac
"""


class Node:
    """A /proc of our own, a py-spy of our own, and the job 17 on it."""

    def __init__(self, root: Path) -> None:
        self.proc = root / "proc"
        self.program = root / "py-spy"
        self.program.write_text(SCRIPT)
        self.program.chmod(0o755)
        self.uid = os.getuid()
        self.beats: dict[int, Beat] = {}
        self.told: list[Mapping[str, Any]] = []
        self.accepted = True
        self.now = 100.0
        self.dumps = self.with_command(str(self.program))

    def with_command(self, *command: str) -> StackDumps:
        self.dumps = StackDumps(
            lambda job: (self.uid, self.beats) if job == 17 else None,
            command=command,
            tell=self.tell,
            is_told=lambda _event: self.accepted,
            proc=self.proc,
        )
        return self.dumps

    def tell(self, content: Mapping[str, Any]) -> str:
        self.told.append(content)
        return f"boot:{len(self.told)}"

    def process(self, rank: int, pid: int | None, *, step: int = 5, job: str = "job_17", state: str = "S") -> None:
        self.beats[rank] = Beat(rank=rank, step=step, phase=Phase.STEP, pid=pid)
        if pid is not None:
            path = self.proc / str(pid)
            path.mkdir(parents=True)
            (path / "cgroup").write_text(f"0::/system.slice/slurmstepd.scope/{job}/step_0/user/task_0\n")
            (path / "status").write_text(f"Name:\tpython\nState:\t{state} (sleeping)\n")
            (path / "wchan").write_text("cl_sync_io_wait" if state == "D" else "0")

    def ask(self, key: str = "k", job: object = 17) -> Mapping[str, Any]:
        """Ask, and go on until it is answered; the clock stands still while a command runs by itself."""
        count = len(self.told)
        self.dumps.ask(key, job, self.now)
        end = time.monotonic() + 20
        while len(self.told) == count and time.monotonic() < end:
            select.select(self.dumps.filenos(), [], [], 0.05)
            self.dumps.step(self.now)
        return self.told[-1]


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_the_main_thread_stands_first(node: Node) -> None:
    node.process(0, 4711)
    told = node.ask()
    assert (told["key"], told["job"], told["said"]) == ("k", 17, "")
    (dump,) = told["dumps"]
    assert (dump["rank"], dump["pid"], dump["state"]) == (0, 4711, "S")
    assert dump["stacks"].startswith('Thread 0x1 (active): "MainThread"\n    all_reduce (torch/c10d.py:5)\n')
    assert '"worker"' in dump["stacks"]
    assert "train.py\nPython" not in dump["stacks"]


def test_the_ranks_that_are_behind_come_first_and_no_more_than_so_many(node: Node) -> None:
    node.with_command()
    for rank in range(MOST_DUMPS + 4):
        node.process(rank, 5000 + rank, step=9 - (rank == 7))
    told = node.ask()
    assert [dump["rank"] for dump in told["dumps"]][:3] == [7, 0, 1]
    assert len(told["dumps"]) == MOST_DUMPS


def test_all_of_it_fits_into_what_the_controller_keeps(node: Node) -> None:
    for rank in range(MOST_DUMPS):
        node.process(rank, 6000 + rank)
    told = node.ask()
    assert [len(dump["stacks"]) for dump in told["dumps"]] == [MOST_TEXT] * MOST_DUMPS
    assert [dump.stacks for dump in dumps_of(told)] == [dump["stacks"] for dump in told["dumps"]]


def test_what_py_spy_says_instead_is_told(node: Node) -> None:
    node.process(0, 4712)
    (dump,) = node.ask()["dumps"]
    assert dump["said"].endswith("Error: Failed to find python version from target process")
    assert "stacks" not in dump


def test_without_py_spy_the_kernel_still_tells_something(node: Node, tmp_path: Path) -> None:
    node.with_command(str(tmp_path / "none"), "dump")
    node.process(0, 4711, state="D")
    (dump,) = node.ask()["dumps"]
    assert (dump["state"], dump["waits_in"]) == ("D", "cl_sync_io_wait")
    assert dump["said"].endswith("none cannot be run (No such file or directory): no stacks were read")


def test_a_site_may_switch_it_off(node: Node) -> None:
    node.with_command()
    node.process(0, 4711)
    (dump,) = node.ask()["dumps"]
    assert dump["said"] == "stack_dump is empty in agent.toml: no stacks were read"


@pytest.mark.parametrize(("job", "uid"), [("job_18", None), ("job_17", 4_000_000)])
def test_a_process_of_somebody_else_is_not_looked_at(node: Node, job: str, uid: int | None) -> None:
    node.process(0, 4711, job=job)
    node.uid = node.uid if uid is None else uid
    (dump,) = node.ask()["dumps"]
    assert dump["said"] == "the process that the heartbeat names is none of this job"
    assert not {"stacks", "state"} & set(dump)


def test_a_process_that_is_gone_or_was_never_named_is_said(node: Node) -> None:
    node.beats = {
        0: Beat(rank=0, step=1, phase=Phase.STEP, pid=99),
        1: Beat(rank=1, step=1, phase=Phase.STEP),
    }
    gone, unnamed = node.ask()["dumps"]
    assert gone["said"].startswith("the process is gone")
    assert unnamed["said"] == "the heartbeat names no process"


@pytest.mark.parametrize("job", [18, "x", None, -1, True, "17 "])
def test_a_job_that_is_not_here_is_said(node: Node, job: object) -> None:
    assert node.ask(job=job)["said"] == "this node has no heartbeats of the job"


def test_one_that_does_not_end_is_left_for_the_next(node: Node) -> None:
    node.process(0, 4713)
    node.process(1, 4711)
    node.dumps.ask("k", 17, node.now)
    node.dumps.step(node.now)
    assert node.dumps.due_at() == node.now + 5
    node.now += 5
    late, good = node.ask()["dumps"]
    assert late["said"].endswith("did not end in time")
    assert "stacks" in good


def test_all_together_have_a_time(node: Node) -> None:
    for rank, pid in enumerate((4713, 4711)):
        node.process(rank, pid)
    node.dumps.ask("k", 17, node.now)
    node.dumps.step(node.now)
    node.dumps.step(node.now + 20)
    assert [dump["rank"] for dump in node.told[0]["dumps"]] == [0]
    assert node.told[0]["said"] == "there was no time for 1 more ranks"


def test_an_answer_is_given_again_when_it_is_asked_for_again(node: Node) -> None:
    node.process(0, 4711)
    first = node.ask()
    node.dumps.ask("k", 17, node.now + 1)
    assert len(node.told) == 1, "every message may hold the same request"
    node.accepted = False
    node.dumps.ask("k", 17, node.now + 600)
    assert len(node.told) == 1, "the first one still waits in the spool"
    node.accepted = True
    node.dumps.ask("k", 17, node.now + 600)
    assert node.told == [first, first]


def test_nothing_is_due_without_a_request(node: Node) -> None:
    assert node.dumps.due_at() is None
    node.dumps.step(1.0)
    node.dumps.close()
    assert (node.dumps.filenos(), node.told) == ((), [])
