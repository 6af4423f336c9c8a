"""`nodewatch job` as it is typed, and what it prints."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from nodewatch.cli.job import job, render
from nodewatch.controller.operators import OperatorServer
from nodewatch.errors import ChannelError

START = 1_764_000_000.0
RUN: dict[str, Any] = {
    "run": 1,
    "cause": "hardware",
    "text": "n2 failed (gpu.lost on GPU-3): restart 1 of 3",
    "evidence": [
        "n2 failed (gpu.lost on GPU-3)",
        "rank 11: CUDA error: unspecified launch failure",
        "rank 0: NCCL error",
    ],
    "node": "n2",
    "started_at": START,
    "ended_at": START + 10920.0,
    "back_at": START + 10929.0,
    "restarts": True,
    "lost_s": 9.0,
    "last_step": 130,
    "saved_step": 100,
    "resumed_step": 100,
    "lost_steps": 30,
}
ANSWER: dict[str, Any] = {
    "job": 17,
    "shown_as": "17",
    "name": "llama",
    "user": "ada",
    "states": ["RUNNING"],
    "nodes": ["n1", "n4"],
    "auto_resume": "3,dir=/fsx/run1",
    "restarts": {"used": 1, "allowed": 3, "left": 2},
    "interruptions": [RUN],
    "lost_s": 9.0,
    "lost_steps": 30,
    "excluded": ["n2"],
    "next": "it runs",
}


def told(**changes: Any) -> list[str]:
    return render({**ANSWER, "interruptions": [{**RUN, **changes}]}).splitlines()


def test_the_whole_story() -> None:
    lines = render(ANSWER).splitlines()
    assert lines[:7] == [
        "job 17 (llama, ada): running on n1,n4",
        "  asked for    --auto-resume=3,dir=/fsx/run1",
        "  restarts     1 of 3 used",
        "  time lost    9 s in 1 interruption",
        "  steps lost   30 steps",
        "  kept off     n2",
        "  next         it runs",
    ]
    assert lines[8].endswith("run 1 ended after 3 h 2 min: the machine, not your program")
    assert lines[9:] == [
        "  why          n2 failed (gpu.lost on GPU-3): restart 1 of 3",
        "  evidence     rank 11: CUDA error: unspecified launch failure",
        "               rank 0: NCCL error",
        "  got to       step 130",
        "  went on from step 100, 30 steps lost",
        "  back after   9 s",
    ]


def test_what_is_not_known_is_not_made_up() -> None:
    lines = told(ended_at=None, back_at=None, last_step=None, saved_step=None, resumed_step=None, evidence=[])
    assert lines[8].endswith("run 1 ended: the machine, not your program")
    assert lines[9:] == ["  why          n2 failed (gpu.lost on GPU-3): restart 1 of 3"]
    assert "  steps lost   not known" in render({**ANSWER, "lost_steps": None, "lost_s": None})
    assert "last saved   step 100" in "\n".join(told(resumed_step=None, restarts=False))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (59, "59 s"), (61, "1 min 1 s"), (3600, "1 h 0 min"), (90000, "1 d 1 h")],
)
def test_durations(seconds: float, words: str) -> None:
    assert f"  back after   {words}" in told(lost_s=seconds)


@pytest.fixture
def socket(tmp_path: Path) -> Iterator[Path]:
    def answer(question: Mapping[str, Any], uid: int) -> Mapping[str, Any]:
        known = question == {"ask": "job", "job": "17"} and uid >= 0
        return ANSWER if known else {"error": f"no job {question['job']} is known"}

    server = OperatorServer(tmp_path / "controller.sock", answer)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield tmp_path / "controller.sock"
    server.shutdown()
    server.server_close()


def test_the_command(socket: Path) -> None:
    text = CliRunner().invoke(job, ["17", "--socket", str(socket)])
    assert (text.exit_code, text.output) == (0, render(ANSWER) + "\n")
    document = CliRunner().invoke(job, ["17", "--json", "--socket", str(socket)])
    assert json.loads(document.output) == ANSWER
    refused = CliRunner().invoke(job, ["99", "--socket", str(socket)])
    assert isinstance(refused.exception, ChannelError)
    assert str(refused.exception) == "no job 99 is known"
