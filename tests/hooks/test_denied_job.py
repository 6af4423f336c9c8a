"""A prolog that denies writes why into the output file of the batch job, as its user, and never waits for a file system."""

import os
import stat
import time
from collections.abc import Callable

import pytest

from .conftest import FakeAgent, Hooks

DENY = b'{"v":1,"allow":false,"reason":"nodewatch: gpu.xid.79 on g0 (fatal)","counted":false}\n'
SAID = "nodewatch: gpu.xid.79 on g0 (fatal) (job 17 did not start on n1)\n"
StartAgent = Callable[[object], FakeAgent]


def job(hooks: Hooks, stdout: str, **more: str) -> dict[str, str]:
    return {
        "SLURM_JOB_ID": "17",
        "SLURM_JOB_USER": "ada",
        "SLURM_JOB_UID": str(os.geteuid()),
        "SLURM_JOB_GID": str(os.getegid()),
        "SLURM_JOB_WORK_DIR": str(hooks.work),
        "SLURMD_NODENAME": "n1",
        "SLURM_JOB_STDOUT": stdout,
        **more,
    }


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("slurm-%j.out", "slurm-17.out"),
        ("out", "out"),
        ("%u/%j.100%%", "ada/17.100%"),
        ("slurm-%A_%a.out", "slurm-15_2.out"),
    ],
)
def test_the_output_file_says_why(hooks: Hooks, agent: StartAgent, pattern: str, name: str) -> None:
    agent(DENY)
    (hooks.work / "ada").mkdir()

    ran = hooks.run("prolog", **job(hooks, pattern, SLURM_ARRAY_JOB_ID="15", SLURM_ARRAY_TASK_ID="2"))

    assert (ran.code, ran.out) == (1, "nodewatch: gpu.xid.79 on g0 (fatal)\n")
    assert (hooks.work / name).read_text() == SAID


def test_a_batch_job_that_named_no_output(hooks: Hooks, agent: StartAgent) -> None:
    agent(DENY)

    hooks.run("prolog", **job(hooks, "", SLURM_JOB_STDIN="/dev/null"))

    assert (hooks.work / "slurm-17.out").read_text() == SAID


def test_what_stands_there_already_is_kept(hooks: Hooks, agent: StartAgent) -> None:
    agent(DENY)
    (hooks.work / "out").write_text("step 40\n")

    hooks.run("prolog", **job(hooks, f"{hooks.work}/out"))
    hooks.run("prolog", **job(hooks, f"{hooks.work}/out"))

    assert (hooks.work / "out").read_text() == "step 40\n" + SAID + SAID


@pytest.mark.parametrize(("directory", "file"), [(0o755, 0o644), (0o700, 0o600), (0o750, 0o640)])
def test_a_new_file_is_as_readable_as_its_directory(hooks: Hooks, agent: StartAgent, directory: int, file: int) -> None:
    agent(DENY)
    (hooks.work / "logs").mkdir()
    (hooks.work / "logs").chmod(directory)

    hooks.run("prolog", **job(hooks, "logs/out"))

    assert file == stat.S_IMODE((hooks.work / "logs" / "out").stat().st_mode)


@pytest.mark.parametrize(
    "variables",
    [
        {"SLURM_JOB_STDOUT": ""},
        {"SLURM_JOB_STDOUT": "/dev/null"},
        {"SLURM_JOB_STDOUT": "%x-%N.out"},
        {"SLURM_JOB_STDOUT": "%5j.out"},
        {"SLURM_JOB_STDOUT": "array-%a.out"},
        {"SLURM_JOB_STDOUT": "trailing%"},
        {"SLURM_JOB_STDOUT": "back\\slash"},
        {"SLURM_JOB_WORK_DIR": ""},
        {"SLURM_JOB_UID": ""},
        {"SLURM_JOB_STDOUT": "missing/directory"},
    ],
)
def test_better_no_word_than_a_stray_file(hooks: Hooks, agent: StartAgent, variables: dict[str, str]) -> None:
    agent(DENY)
    before = sorted(hooks.work.rglob("*"))

    ran = hooks.run("prolog", **{**job(hooks, "out"), **variables})

    assert ran.code == 1
    assert ran.err == "nodewatch: gpu.xid.79 on g0 (fatal)\n"
    assert before == sorted(hooks.work.rglob("*"))


def test_it_is_written_with_the_users_rights(hooks: Hooks, agent: StartAgent) -> None:
    """Root's would pass the directory's mode; who is not root cannot become the user, and writes nothing else."""
    agent(DENY)
    (hooks.work / "logs").mkdir(mode=0o700)
    nobody = str(os.geteuid() or 65534)
    if os.geteuid() != 0:
        (hooks.work / "logs").chmod(0o500)

    ran = hooks.run("prolog", **job(hooks, "logs/out", SLURM_JOB_UID=nobody, SLURM_JOB_GID=nobody))

    assert ran.code == 1
    assert not (hooks.work / "logs" / "out").exists()


def test_a_pipe_without_a_reader_holds_nobody_up(hooks: Hooks, agent: StartAgent) -> None:
    agent(DENY)
    os.mkfifo(hooks.work / "out")

    assert hooks.run("prolog", **job(hooks, "out")).code == 1


def test_a_pipe_with_a_reader_gets_nothing(hooks: Hooks, agent: StartAgent) -> None:
    agent(DENY)
    os.mkfifo(hooks.work / "out")
    reader = os.open(hooks.work / "out", os.O_RDONLY | os.O_NONBLOCK)

    assert hooks.run("prolog", **job(hooks, "out")).code == 1
    assert os.read(reader, 100) == b""
    os.close(reader)


def test_an_epilog_and_a_health_check_write_nothing_for_the_user(hooks: Hooks, agent: StartAgent) -> None:
    agent(DENY)

    assert hooks.run("epilog", **job(hooks, "out")).code == 1
    assert hooks.run("healthcheck", **job(hooks, "out")).code == 1
    assert not (hooks.work / "out").exists()


def test_a_job_that_may_start_finds_its_output_untouched(hooks: Hooks, agent: StartAgent) -> None:
    agent(b'{"v":1,"allow":true,"reason":"","counted":false}\n')

    assert hooks.run("prolog", **job(hooks, "out")).code == 0
    assert not (hooks.work / "out").exists()


def test_a_file_system_that_hangs_is_left_behind(hooks: Hooks, agent: StartAgent) -> None:
    """The child that writes is stopped where it stands: what it would open never answers."""
    agent(DENY)
    program = f"""
import sys, time
sys.path.insert(0, {str(hooks.directory)!r})
import nodewatch_hooks
nodewatch_hooks._write_as = lambda *_: time.sleep(30)
sys.exit(nodewatch_hooks.main(["prolog"]))
"""
    (hooks.work / "prolog").write_text(f"#!/usr/bin/python3 -IS\n{program}")
    (hooks.work / "prolog").chmod(0o755)
    started = time.monotonic()

    ran = Hooks(directory=hooks.work, work=hooks.work).run("prolog", **job(hooks, "out"))

    assert ran.code == 1
    assert time.monotonic() - started < 20
