"""What a job leaves behind, read from real files by the program that the agent starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nodewatch.sensors.job_output import TAIL_BYTES, output, records, tail

START = 1_700_000_000.0
ERROR = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.\n"


def run(**question: Any) -> dict[str, Any]:
    """As the agent runs it."""
    argv = [sys.executable, "-P", "-m", "nodewatch.sensors.job_output", json.dumps({"uid": os.getuid(), **question})]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=True)
    answer = json.loads(done.stdout)
    assert isinstance(answer, dict)
    return answer


def test_only_lines_that_tell_something_leave_the_node(tmp_path: Path) -> None:
    path = tmp_path / "slurm-17.out"
    path.write_text("my secret prompt\n" * 50 + ERROR + "srun: error: n1: task 0: Exited with exit code 1\n")
    told = run(output=str(path), output_from=0, restart=0)
    assert told == {
        "lines": [ERROR.strip(), "srun: error: n1: task 0: Exited with exit code 1"],
        "unread": "",
        "is_cut": False,
    }


def test_a_thousand_ranks_that_say_the_same_are_three_lines(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_text("".join(f"[rank{i}]: ConnectionResetError: x\n" for i in range(1000)) + ERROR)
    lines = output(str(path), since=0, restart=0)["lines"]
    assert lines[:3] == [f"[rank{i}]: ConnectionResetError: x" for i in range(3)]
    assert lines[3:] == [ERROR.strip()]


def test_the_end_of_a_long_file(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_text(ERROR + "x" * TAIL_BYTES + "\nhalf a line MemoryError\n")
    told = output(str(path), since=0, restart=0)
    assert (told["lines"], told["is_cut"]) == (["half a line MemoryError"], True)


@pytest.mark.parametrize(
    ("since", "restart", "marked", "lines"),
    [
        (len(ERROR), 1, False, ["MemoryError"]),
        (None, 1, True, ["MemoryError"]),
        (None, 1, False, None),
        (None, 0, False, [ERROR.strip(), "MemoryError"]),
        (10_000, 1, False, [ERROR.strip(), "MemoryError"]),
    ],
    ids=["its size was known", "the task prolog's line", "not known", "the first run", "truncated meanwhile"],
)
def test_an_earlier_runs_words_are_not_this_ones(
    tmp_path: Path, since: int | None, restart: int, marked: bool, lines: list[str] | None
) -> None:
    path = tmp_path / "out"
    path.write_text(ERROR + ("nodewatch: job 17 starts again (restart 1)\n" if marked else "") + "MemoryError\n")
    told = output(str(path), since=since, restart=restart)
    assert told["lines"] == lines
    assert bool(told["unread"]) == (lines is None)


def test_what_cannot_be_read_is_unknown_and_why(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path, why in ((tmp_path / "none", "No such file"), (tmp_path, "is no file"), (fifo, "is no file")):
        told = run(output=str(path), output_from=0, restart=0)
        assert told["lines"] is None
        assert why in told["unread"]
    assert "did not tell" in run(restart=0)["unread"]


def test_the_size_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "out"
    assert run(output=str(path), size=True) == {"size": 0}
    path.write_text("12345")
    assert run(output=str(path), size=True) == {"size": 5}


def line(**fields: Any) -> str:
    return json.dumps(fields) + "\n"


def test_what_the_ranks_wrote_down(tmp_path: Path) -> None:
    failed = {"event": "failed", "restart": 1, "host": "n1", "error": "X: y"}
    (tmp_path / "failures.jsonl").write_text(
        line(t=START - 900, **{**failed, "restart": 0}, rank=9, kind="program")
        + line(t=START + 50, **failed, rank=0, kind="peer_lost")
        + line(t=START + 51, **failed, rank=3, kind="program")
        + '{"t": 17'
    )
    (tmp_path / "progress.jsonl").write_text(
        line(t=START - 900, event="step", restart=0, step=500)
        + line(t=START + 1, event="start", restart=1, step=400, resumed_from="step-00000400")
        + line(t=START + 2, event="step", restart=1, step=401)
        + line(t=START + 3, event="saved", restart=1, step=401, checkpoint="step-00000401")
        + line(t=START + 4, event="step", restart=1, step=402)
        + "[1]\nnonsense\n"
    )
    told = records(str(tmp_path), restart=1, since=START)
    assert [failure["rank"] for failure in told["failures"]] == [3, 0], "those that only lost a peer come last"
    assert (told["first_step"], told["last_step"], told["checkpoint_step"]) == (400, 402, 401)
    assert told["resumed_from"] == "step-00000400"
    assert records(str(tmp_path), restart=1, since=None) == told, "by the restart where the time is not known"


def test_the_checkpoint_that_is_there_counts(tmp_path: Path) -> None:
    (tmp_path / "progress.jsonl").write_text(line(t=START, event="saved", restart=0, step=70))
    for step, whole in ((50, True), (60, True), (70, False)):
        (tmp_path / f"step-{step:08d}").mkdir()
        if whole:
            (tmp_path / f"step-{step:08d}" / "manifest.json").write_text("{}")
    assert records(str(tmp_path), restart=0, since=None)["checkpoint_step"] == 60
    assert records(str(tmp_path / "none"), restart=0, since=None) == {}


def test_half_a_line_at_the_beginning_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("first\nsecond\nthird\n")
    assert tail(str(path), at_most=10) == (b"third\n", True)
    assert tail(str(path)) == (b"first\nsecond\nthird\n", False)


def test_root_reads_as_the_jobs_user_and_anybody_else_as_himself(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_text(ERROR)
    path.chmod(0o600)
    told = run(uid=65534, output=str(path), output_from=0, restart=0)
    is_root = os.geteuid() == 0
    assert told["lines"] == (None if is_root else [ERROR.strip()])
    assert ("Permission denied" in told["unread"]) == is_root
