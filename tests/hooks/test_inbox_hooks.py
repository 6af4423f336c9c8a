"""prolog_slurmctld and epilog_slurmctld: a whole file or none, and exit 0 in any case."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from .conftest import Hooks

JOB = {
    "SLURM_JOB_ID": "17",
    "SLURM_JOB_USER": "ada",
    "SLURM_JOB_PARTITION": "train",
    "SLURM_JOB_NODELIST": "n[1-3]",
}
BOTH = ["prolog_slurmctld", "epilog_slurmctld"]


def only_file(hooks: Hooks) -> tuple[str, dict[str, object]]:
    (path,) = hooks.inbox.glob("[!.]*")
    return path.name, json.loads(path.read_text())


def test_a_job_that_starts(hooks: Hooks) -> None:
    before = time.time()

    ran = hooks.run(
        "prolog_slurmctld", SPANK_NODEWATCH_AUTO_RESUME="3", SLURM_JOB_ACCOUNT="llm", SLURM_JOB_NAME="run1", **JOB
    )

    assert (ran.code, ran.out, ran.err) == (0, "", "")
    name, record = only_file(hooks)
    assert name == "job_started-17-0.json"
    assert before <= float(str(record.pop("at"))) <= time.time()
    assert record == {
        "v": 1,
        "kind": "job_started",
        "job_id": 17,
        "restart_count": 0,
        "nodes": "n[1-3]",
        "user": "ada",
        "partition": "train",
        "account": "llm",
        "name": "run1",
        "auto_resume": "3",
    }


def test_a_job_without_the_flag_says_null(hooks: Hooks) -> None:
    hooks.run("prolog_slurmctld", **JOB)

    assert only_file(hooks)[1]["auto_resume"] is None


def test_a_restarted_job_has_a_file_of_its_own(hooks: Hooks) -> None:
    hooks.run("prolog_slurmctld", **JOB)
    hooks.run("prolog_slurmctld", SLURM_JOB_RESTART_COUNT="2", **JOB)

    assert sorted(path.name for path in hooks.inbox.glob("[!.]*")) == ["job_started-17-0.json", "job_started-17-2.json"]


@pytest.mark.parametrize(
    ("variables", "exit_code"),
    [
        ({"SLURM_JOB_EXIT_CODE2": "1:0", "SLURM_JOB_EXIT_CODE": "256"}, "1:0"),
        ({"SLURM_JOB_EXIT_CODE2": "0:9", "SLURM_JOB_EXIT_CODE": "9"}, "0:9"),
        ({"SLURM_JOB_EXIT_CODE": "256"}, "1:0"),
        ({"SLURM_JOB_EXIT_CODE": "9"}, "0:9"),
        ({}, "0:0"),
    ],
)
def test_a_job_that_ends(hooks: Hooks, variables: dict[str, str], exit_code: str) -> None:
    ran = hooks.run("epilog_slurmctld", **JOB, **variables)

    assert ran.code == 0, ran.err
    name, record = only_file(hooks)
    assert name == "job_ended-17-0.json"
    record.pop("at")
    assert {
        "v": 1,
        "kind": "job_ended",
        "job_id": 17,
        "restart_count": 0,
        "nodes": "n[1-3]",
        "exit_code": exit_code,
    } == record


def test_the_end_of_a_requeued_run_is_booked_under_that_run(hooks: Hooks) -> None:
    """Slurm raises the count before it calls EpilogSlurmctld for the run that was requeued."""
    hooks.run("prolog_slurmctld", SLURM_JOB_RESTART_COUNT="0", **JOB)
    hooks.run("epilog_slurmctld", SLURM_JOB_RESTART_COUNT="1", **JOB)
    hooks.run("prolog_slurmctld", SLURM_JOB_RESTART_COUNT="1", **JOB)
    hooks.run("epilog_slurmctld", SLURM_JOB_RESTART_COUNT="1", **JOB)

    assert sorted(path.name for path in hooks.inbox.iterdir()) == [
        "job_ended-17-0.json",
        "job_ended-17-1.json",
        "job_started-17-0.json",
        "job_started-17-1.json",
    ]


def test_an_end_without_a_start_believes_slurm(hooks: Hooks) -> None:
    hooks.run("epilog_slurmctld", SLURM_JOB_RESTART_COUNT="3", **JOB)

    assert only_file(hooks)[0] == "job_ended-17-3.json"


@pytest.mark.parametrize("hook", BOTH)
def test_no_inbox(hooks: Hooks, hook: str) -> None:
    hooks.inbox.rmdir()

    ran = hooks.run(hook, **JOB)

    assert ran.code == 0
    assert ran.err.count("\n") == 1
    assert f"was not handed to the controller: {hooks.inbox}: No such file or directory" in ran.err


@pytest.mark.parametrize("hook", BOTH)
def test_an_inbox_that_may_not_be_written(hooks: Hooks, hook: str) -> None:
    if os.geteuid() == 0:
        # Root may write anywhere but where the file system says no; sysfs always does.
        inbox = "/sys/kernel"
    else:
        hooks.inbox.chmod(0o500)
        inbox = str(hooks.inbox)

    ran = hooks.run(hook, **{**JOB, "NODEWATCH_INBOX": inbox})

    assert ran.code == 0
    assert ran.err.count("\n") == 1
    assert "was not handed to the controller" in ran.err


@pytest.mark.parametrize("hook", BOTH)
@pytest.mark.parametrize(
    "job", [{}, {"SLURM_JOB_ID": "seventeen"}, {"SLURM_JOB_ID": "1", "SLURM_JOB_RESTART_COUNT": "-"}]
)
def test_an_environment_that_makes_no_sense(hooks: Hooks, hook: str, job: dict[str, str]) -> None:
    ran = hooks.run(hook, **job)

    assert ran.code == 0
    assert ran.err.count("\n") == 1
    assert list(hooks.inbox.iterdir()) == []


@pytest.mark.parametrize("hook", BOTH)
def test_a_full_disk_leaves_no_half_file(hooks: Hooks, hook: str) -> None:
    """A file size limit of one block stands in for the disk that is full."""
    limited = (
        "import os,resource,signal,sys;signal.signal(signal.SIGXFSZ,signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE,(64,64));os.execv(sys.argv[1],sys.argv[1:])"
    )

    done = subprocess.run(
        ["/usr/bin/python3", "-c", limited, str(hooks.directory / hook)],
        env={**JOB, "NODEWATCH_INBOX": str(hooks.inbox)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "File too large" in done.stderr
    assert list(hooks.inbox.iterdir()) == []


def test_a_reader_never_sees_half_a_file(hooks: Hooks) -> None:
    """What ends in .json is whole at every moment, while hooks write."""
    writers = [
        subprocess.Popen(
            [str(hooks.directory / "prolog_slurmctld")],
            env={**JOB, "NODEWATCH_INBOX": str(hooks.inbox), "SLURM_JOB_RESTART_COUNT": str(number)},
        )
        for number in range(20)
    ]
    seen: set[str] = set()
    deadline = time.monotonic() + 20
    while len(seen) < 20 and time.monotonic() < deadline:
        for path in hooks.inbox.glob("[!.]*"):
            json.loads(path.read_text())
            seen.add(path.name)

    assert [writer.wait(timeout=20) for writer in writers] == [0] * 20
    assert {f"job_started-17-{number}.json" for number in range(20)} == seen
    assert [path.name for path in hooks.inbox.glob(".*")] == [".run-17"]


def test_a_name_that_no_hook_has(hooks: Hooks, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere"
    shutil.copytree(hooks.directory, other)
    (other / "prolog").rename(other / "prologue")

    done = subprocess.run([str(other / "prologue")], capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert "no hook is called 'prologue'" in done.stderr


@pytest.mark.parametrize(
    ("variables", "out"),
    [
        ({}, ""),
        ({"NODEWATCH_AUTO_RESUME": "3"}, ""),
        ({"SLURM_RESTART_COUNT": "1"}, ""),
        (
            {"NODEWATCH_AUTO_RESUME": "3", "SLURM_RESTART_COUNT": "2"},
            "print nodewatch: job 17 starts again (restart 2)\n",
        ),
        ({"NODEWATCH_AUTO_RESUME": "3", "SLURM_RESTART_COUNT": "2", "SLURM_STEP_ID": "0"}, ""),
        ({"NODEWATCH_AUTO_RESUME": "3", "SLURM_RESTART_COUNT": "two"}, ""),
    ],
)
def test_task_prolog_speaks_once_and_only_when_a_job_was_resumed(
    hooks: Hooks, variables: dict[str, str], out: str
) -> None:
    ran = hooks.run("task_prolog", SLURM_JOB_ID="17", **variables)

    assert (0, out, "") == (ran.code, ran.out, ran.err)
