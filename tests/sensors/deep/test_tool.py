"""One long diagnostic: real processes that hang, ignore signals, flood, leave children behind, or are not there."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nodewatch.errors import SensorError
from nodewatch.sensors.deep.tool import Command, Outcome, Procedure, Step, ToolSensor
from nodewatch.sensors.reading import PolledSensor, Reading

Run = Callable[..., Reading]
WHY = "it was stopped: the node is wanted for a job"


def one(*argv: str, within_s: float | None = None, seen: list[Outcome] | None = None) -> Callable[[], Procedure]:
    """A procedure of one command whose sample is its standard output."""

    def procedure() -> Procedure:
        (ended,) = yield Step(commands=(Command(argv=argv),), within_s=within_s)
        if seen is not None:
            seen.append(ended)
        return Reading(sample=ended.stdout)

    return procedure


def sensor(procedure: Callable[[], Procedure], *, deadline_s: float = 20.0, lock: Path | None = None) -> ToolSensor:
    return ToolSensor("tool", str, procedure, deadline_s=deadline_s, grace_s=0.3, lock=lock)


def shell(script: str) -> tuple[str, ...]:
    return ("sh", "-c", script)


def is_gone(pid: int) -> bool:
    """Whether the process has ended, within 5 s: one that is nobody's child any more takes a moment to be reaped."""
    for _ in range(250):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.02)
    return False


def pid_in(path: Path) -> int:
    """The process id that a script wrote, waited for."""
    for _ in range(500):
        if path.exists() and path.read_text().strip():
            return int(path.read_text())
        time.sleep(0.02)
    raise AssertionError(f"{path} was not written")


def until_stopped(tool: ToolSensor, ready: Path) -> Reading:
    """Start, wait until the script is ready, stop, and take the reading."""
    tool.start(time.monotonic())
    for _ in range(500):
        assert tool.result(time.monotonic()) is None
        if ready.exists():
            break
        time.sleep(0.02)
    tool.stop(WHY, time.monotonic())
    for _ in range(500):
        reading = tool.result(time.monotonic())
        if reading is not None:
            return reading
        time.sleep(0.02)
    raise AssertionError("no reading came")


def test_it_is_a_polled_sensor_and_runs_again(run: Run) -> None:
    tool = sensor(one("echo", "well"))
    as_polled: PolledSensor = tool
    assert (as_polled.name, as_polled.reads, tool.deadline_s) == ("tool", str, 20.0)
    assert tool.due_at() is None and tool.filenos() == () and tool.result(0.0) is None
    for _ in range(2):
        assert run(tool) == Reading(sample="well\n")
    assert tool.result(time.monotonic()) is None


def test_a_second_start_changes_nothing_while_one_runs(run: Run, tmp_path: Path) -> None:
    tool = sensor(one(*shell(f"echo x >> {tmp_path}/runs; sleep 0.3")))
    tool.start(time.monotonic())
    assert run(tool).sample == ""
    assert (tmp_path / "runs").read_text() == "x\n"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("no-such-tool",), "no-such-tool is not installed"),
        (shell("exit 127"), "is not installed"),
        (shell("echo no rights >&2; exit 126"), "cannot be executed (no rights)"),
        (("/etc/hostname",), "cannot be executed"),
    ],
)
def test_what_cannot_be_run(run: Run, argv: tuple[str, ...], words: str) -> None:
    error = run(sensor(one(*argv))).error
    assert error is not None and words in error and error.count(".") <= 3


def test_bytes_that_are_no_text(run: Run) -> None:
    reading = run(sensor(one(*shell(r"printf '\377\376ok'"))))
    assert isinstance(reading.sample, str) and reading.sample.endswith("ok")


def test_a_line_of_a_gigabyte(run: Run) -> None:
    error = run(sensor(one(*shell("head -c 1000000000 /dev/zero")))).error
    assert error is not None and "8 MiB" in error


def test_output_beyond_64_kib_is_kept(run: Run) -> None:
    reading = run(sensor(one(*shell("head -c 3000000 /dev/zero | tr '\\0' x"))))
    assert isinstance(reading.sample, str) and len(reading.sample) == 3_000_000


def test_the_deadline(run: Run) -> None:
    error = run(sensor(one("sleep", "60"), deadline_s=0.3)).error
    assert error is not None and "within 0.3 s" in error


def test_a_step_that_is_late_is_the_procedures_to_judge(run: Run) -> None:
    seen: list[Outcome] = []
    reading = run(sensor(one(*shell("echo so far; sleep 60"), within_s=0.5, seen=seen)))
    assert reading.sample == "so far\n"
    assert [(ended.is_late, ended.returncode) for ended in seen] == [(True, -15)]


def test_stopped_gently_it_can_clean_up(tmp_path: Path) -> None:
    script = f"trap 'echo told > {tmp_path}/told; exit 0' TERM; touch {tmp_path}/ready; while :; do sleep 0.05; done"
    assert until_stopped(sensor(one(*shell(script))), tmp_path / "ready") == Reading(error=WHY)
    assert (tmp_path / "told").read_text() == "told\n"


def test_one_that_ignores_the_signal_is_killed_with_its_children(tmp_path: Path) -> None:
    script = f"trap '' TERM; sleep 300 & echo $! > {tmp_path}/pid; touch {tmp_path}/ready; while :; do sleep 0.05; done"
    assert until_stopped(sensor(one(*shell(script))), tmp_path / "ready") == Reading(error=WHY)
    assert is_gone(pid_in(tmp_path / "pid"))


def test_stopping_what_does_not_run_is_nothing(run: Run) -> None:
    tool = sensor(one("true"))
    tool.stop(WHY, time.monotonic())
    assert run(tool) == Reading(sample="")


def test_what_a_tool_leaves_behind_is_ended(run: Run, tmp_path: Path) -> None:
    assert run(sensor(one(*shell(f"sleep 300 & echo $! > {tmp_path}/pid; echo done")))).sample == "done\n"
    assert is_gone(pid_in(tmp_path / "pid"))


def test_one_that_closes_its_output_is_waited_for(run: Run, tmp_path: Path) -> None:
    assert run(sensor(one(*shell(f"exec >&- 2>&-; sleep 0.5; echo x > {tmp_path}/end")))) == Reading(sample="")
    assert (tmp_path / "end").exists()


def test_closed_while_it_runs(tmp_path: Path) -> None:
    tool = sensor(one(*shell(f"trap '' TERM; echo $$ > {tmp_path}/pid; while :; do sleep 0.05; done")))
    tool.start(time.monotonic())
    pid = pid_in(tmp_path / "pid")
    tool.close()
    assert is_gone(pid) and tool.due_at() is None and tool.result(time.monotonic()) is None


def test_it_does_not_outlive_the_agent(tmp_path: Path) -> None:
    program = (
        "import time\nfrom nodewatch.sensors.child import Child\nfrom nodewatch.sensors.deep.tool import launched\n"
        f"Child(launched(('sh', '-c', 'echo $$ > {tmp_path}/pid; exec sleep 300')), now=0.0)\n"
        f"from pathlib import Path\nwhile not Path('{tmp_path}/pid').exists(): time.sleep(0.02)\n"
    )
    pid = os.spawnv(os.P_NOWAIT, sys.executable, [sys.executable, "-c", program])
    os.waitpid(pid, 0)
    assert is_gone(pid_in(tmp_path / "pid"))


def test_never_two_on_a_node(run: Run, tmp_path: Path) -> None:
    lock = tmp_path / "deep.lock"
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        error = run(sensor(one("echo", "x"), lock=lock)).error
        assert error is not None and "another deep diagnostic" in error
    for _ in range(2):
        assert run(sensor(one("echo", "x"), lock=lock)).sample == "x\n"


def test_a_lock_that_cannot_be_made(run: Run, tmp_path: Path) -> None:
    error = run(sensor(one("echo", "x"), lock=tmp_path / "none" / "deep.lock")).error
    assert error is not None and "cannot be locked" in error


def test_two_commands_side_by_side(run: Run, tmp_path: Path) -> None:
    def procedure() -> Procedure:
        server, client = yield Step(
            commands=(
                Command(argv=shell(f"touch {tmp_path}/up; sleep 300")),
                Command(argv=shell(f"test -e {tmp_path}/up && echo $WORD"), after_s=0.5, env={"WORD": "met"}),
            )
        )
        return Reading(sample=(client.stdout, server.returncode))

    assert run(sensor(procedure)).sample == ("met\n", -15)


def _refuses() -> Procedure:
    yield Step(commands=(Command(argv=("true",)),))
    raise SensorError("the tool says nothing that can be read: run it by hand")


def _is_wrong() -> Procedure:
    yield Step(commands=(Command(argv=("true",)),))
    raise IndexError("no such row")


def _never_begins() -> Iterator[Step]:
    raise SensorError("there is nothing to do here")
    yield


@pytest.mark.parametrize(
    ("procedure", "words"),
    [(_refuses, "run it by hand"), (_is_wrong, "IndexError"), (_never_begins, "nothing to do")],
)
def test_a_procedure_that_raises(run: Run, procedure: Callable[[], Procedure], words: str) -> None:
    error = run(sensor(procedure)).error
    assert error is not None and words in error


HELD = """
import ctypes, os, sys, time
libc = ctypes.CDLL(None, use_errno=True)
leader = os.getpid()
libc.prctl(0x59616D61, ctypes.c_ulong(-1), 0, 0, 0)
tracer = os.fork()
if tracer == 0:
    os.setsid()
    for fd in (0, 1, 2):
        os.close(fd)
    if libc.ptrace(0x4206, leader, None, None) == 0:
        with open(sys.argv[1], "w") as file:
            file.write(str(os.getpid()))
    time.sleep(300)
time.sleep(300)
"""
"""A process that a tracer holds: after SIGKILL it cannot be reaped, which to its parent looks as if it hung in the kernel."""


def test_one_that_cannot_be_ended_is_left_behind(run: Run, tmp_path: Path) -> None:
    tool = sensor(one(sys.executable, "-c", HELD, str(tmp_path / "tracer")))
    assert until_stopped(tool, tmp_path / "tracer") == Reading(error=WHY)
    tracer = pid_in(tmp_path / "tracer")
    try:
        tool.start(time.monotonic())
        reading = tool.result(time.monotonic())
        assert reading is not None and reading.error is not None and "hangs in the kernel" in reading.error
    finally:
        os.kill(tracer, signal.SIGKILL)
    # Let go of, it ends, and the next run begins.
    assert is_gone(tracer)
    for _ in range(250):
        tool.start(time.monotonic())
        reading = tool.result(time.monotonic())
        if reading is None:
            break
        time.sleep(0.02)
    assert reading is None
    tool.close()
