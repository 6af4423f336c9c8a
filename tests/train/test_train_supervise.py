"""The command as a batch script runs it, with a stand-in for srun that notes what it was given."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from live_run import TRAIN

DEADLINE_S = 30.0
# Stands for srun: a line for each call, then what the script of that number in $SCRIPTS says.
SRUN = """#!/bin/bash
trap 'kill $! 2>/dev/null; exit 143' TERM
trap 'echo told >> "$NOTED.told"' USR2
echo "$NODEWATCH_TRY $MASTER_ADDR $*" >> "$NOTED"
script="$SCRIPTS/$NODEWATCH_TRY"
[[ -e $script ]] || script="$SCRIPTS/else"
. "$script"
"""
RUNS_ON = "sleep 60 & while kill -0 $! 2>/dev/null; do wait $!; done"


class Job:
    """One batch script's surroundings."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.scripts = home / "scripts"
        self.scripts.mkdir()
        self.bad_nodes = home / "bad-nodes"
        self.noted = home / "noted"
        commands = home / "bin"
        commands.mkdir()
        (commands / "srun").write_text(SRUN)
        (commands / "srun").chmod(0o755)
        self.environment = {
            "PATH": f"{commands}:{os.environ['PATH']}",
            "PYTHONPATH": str(TRAIN),
            "NOTED": str(self.noted),
            "SCRIPTS": str(self.scripts),
            "SLURM_JOB_ID": "17",
            "SLURM_JOB_NODELIST": "n[1-4]",
            "SLURM_NTASKS": "4",
            "NODEWATCH_BAD_NODES": str(self.bad_nodes),
            "NODEWATCH_AUTO_RESUME": f"3,dir={home},spares=1",
        }
        self.running: subprocess.Popen[str] | None = None

    def script(self, name: str, text: str) -> None:
        (self.scripts / name).write_text(text)

    def start(self, *options: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "nodewatch_train.supervise", "--word-s=0.5", "--grace-s=0.5", *options]
        self.running = subprocess.Popen(
            [*command, "--", "srun", "--label", "train.py"],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        return self.running

    def run(self, *options: str) -> tuple[int, list[str]]:
        """The exit code, and the lines for the job's output."""
        running = self.start(*options)
        _, said = running.communicate(timeout=DEADLINE_S)
        return running.returncode, [line for line in said.splitlines() if line.startswith("supervise: ")]

    def calls(self) -> list[str]:
        return self.noted.read_text().splitlines() if self.noted.exists() else []


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    made = Job(tmp_path)
    yield made
    if made.running is not None and made.running.poll() is None:
        made.running.kill()
        made.running.wait()


def eventually(what: Callable[[], object]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


def call(number: int, nodes: str) -> str:
    first, count = nodes.split(",")[0], nodes.count(",") + 1
    overlap = " --overlap" if number else ""
    options = f"--nodes={count} --nodelist={nodes} --kill-on-bad-exit=1 --ntasks={count}{overlap}"
    return f"{number} {first} {options} --label train.py"


def test_a_step_that_ends_well_is_run_once_on_all_but_the_spare(job: Job) -> None:
    job.script("0", "exit 0")

    assert job.run() == (0, ["supervise: starting on n1,n2,n3"])
    assert job.calls() == [call(0, "n1,n2,n3")]


def test_a_node_that_fails_under_the_step_is_left_out(job: Job) -> None:
    job.script("0", 'echo n2 > "$NODEWATCH_BAD_NODES"; exit 137')
    job.script("1", "exit 0")

    assert job.run() == (
        0,
        ["supervise: starting on n1,n2,n3", "supervise: restart 1: n2 is bad; going on on n1,n3,n4"],
    )
    assert job.calls() == [call(0, "n1,n2,n3"), call(1, "n1,n3,n4")]


def test_word_that_comes_after_the_failure_is_waited_for(job: Job) -> None:
    job.script("0", '(sleep 0.2; echo n1 > "$NODEWATCH_BAD_NODES") > /dev/null 2>&1 & exit 1')
    job.script("1", "exit 0")

    assert job.run("--word-s=10")[0] == 0
    assert job.calls() == [call(0, "n1,n2,n3"), call(1, "n2,n3,n4")]


def test_a_step_that_hangs_on_a_bad_node_is_ended(job: Job) -> None:
    job.script("0", f'echo n3 > "$NODEWATCH_BAD_NODES"; {RUNS_ON}')
    job.script("1", "exit 0")

    code, said = job.run()
    assert (code, said[1]) == (0, "supervise: n3 failed: the step is ended")
    assert job.calls()[1] == call(1, "n1,n2,n4")


def test_an_srun_that_does_not_end_is_killed(job: Job) -> None:
    job.script("0", "trap '' TERM; echo n3 > \"$NODEWATCH_BAD_NODES\"; for _ in {1..600}; do sleep 0.1; done")
    job.script("1", "exit 0")

    assert job.run()[0] == 0
    assert job.calls()[1] == call(1, "n1,n2,n4")


def test_a_spare_that_fails_while_it_waits_disturbs_nobody(job: Job) -> None:
    job.script("0", 'echo n4 > "$NODEWATCH_BAD_NODES"; sleep 0.5; exit 0')

    assert job.run() == (0, ["supervise: starting on n1,n2,n3"])


def test_a_node_is_bad_for_the_rest_of_the_job(job: Job) -> None:
    job.script("0", 'echo n1 > "$NODEWATCH_BAD_NODES"; exit 1')
    job.script("1", 'echo n2 > "$NODEWATCH_BAD_NODES"; exit 7')

    code, said = job.run()
    assert code == 7
    assert said[-1] == "supervise: not started again: n2 is bad; 2 healthy nodes are left and 3 are needed"


def test_an_elastic_step_goes_on_with_fewer(job: Job) -> None:
    job.script("0", 'echo n1 > "$NODEWATCH_BAD_NODES"; exit 1')
    job.script("1", 'echo n2 >> "$NODEWATCH_BAD_NODES"; exit 1')
    job.script("2", "exit 0")

    assert job.run("--spares=0", "--min-nodes=2")[0] == 0
    assert job.calls() == [call(0, "n1,n2,n3,n4"), call(1, "n2,n3,n4"), call(2, "n3,n4")]


def test_a_program_that_fails_at_the_same_step_is_tried_twice(job: Job) -> None:
    (job.home / "progress.jsonl").write_text(json.dumps({"event": "step", "step": 5}) + '\n{"torn')
    job.script("else", "exit 3")

    code, said = job.run()
    assert (code, len(job.calls())) == (3, 2)
    assert "it got no further than step 5: look at the program" in said[-1]


def test_one_that_gets_further_each_time_has_its_budget(job: Job) -> None:
    job.environment["NODEWATCH_HEARTBEATS"] = str(job.home / "none")
    job.script("else", f'echo "{{\\"step\\":1$NODEWATCH_TRY}}" >> {job.home}/progress.jsonl; exit 3')

    code, said = job.run("--retries=2")
    assert (code, len(job.calls())) == (3, 3)
    assert said[-1].endswith("2 times started again for that already")


def test_its_own_ranks_tell_the_step_too(job: Job) -> None:
    beats = job.home / "heartbeats"
    beats.mkdir()
    job.environment["NODEWATCH_HEARTBEATS"] = str(beats)
    (beats / "0").write_text(json.dumps({"v": 1, "rank": 0, "step": 9}).ljust(255) + "\n")
    job.script("else", "exit 3")

    assert "no further than step 9" in job.run()[1][-1]


@pytest.mark.parametrize("code", [93, 94])
def test_the_trainings_own_words_end_it(job: Job, code: int) -> None:
    job.script("0", f"exit {code}")

    assert job.run("--word-s=20")[0] == code
    assert len(job.calls()) == 1


def test_a_signal_that_ends_the_job_ends_the_step_and_starts_nothing(job: Job) -> None:
    job.script("0", RUNS_ON)
    running = job.start()
    eventually(job.calls)
    running.send_signal(signal.SIGTERM)

    _, said = running.communicate(timeout=DEADLINE_S)
    assert running.returncode == 143
    assert said.splitlines()[-1] == "supervise: stopped by signal 15: not started again"
    assert len(job.calls()) == 1


def test_a_signal_for_the_program_is_passed_on(job: Job) -> None:
    job.script("0", f"{RUNS_ON}")
    running = job.start()
    eventually(job.calls)
    told = Path(f"{job.noted}.told")
    while not told.exists():
        running.send_signal(signal.SIGUSR2)
        time.sleep(0.05)
    assert running.poll() is None


@pytest.mark.parametrize(
    ("changes", "options", "words"),
    [
        ({"SLURM_JOB_NODELIST": ""}, [], "SLURM_JOB_NODELIST is not set"),
        ({"SLURM_JOB_NODELIST": "n[1-"}, [], "no Slurm host list"),
        ({}, ["--spares=4"], "4 of 4 nodes cannot be spare"),
        ({}, ["--min-nodes=4"], "--min-nodes 4 must be"),
    ],
)
def test_calls_that_cannot_be_meant(job: Job, changes: dict[str, str], options: list[str], words: str) -> None:
    job.environment |= changes

    code, said = job.run(*options)
    assert (code, len(said), job.calls()) == (2, 1, [])
    assert words in said[0]


def test_the_command_must_be_srun(job: Job) -> None:
    command = [sys.executable, "-m", "nodewatch_train.supervise", "--", "python", "train.py"]
    done = subprocess.run(command, env=job.environment, capture_output=True, text=True, timeout=DEADLINE_S, check=False)

    assert done.returncode == 2
    assert done.stderr == "supervise: the command must be srun: python -m nodewatch_train.supervise -- srun ARGS...\n"


def test_without_srun_it_is_said(job: Job) -> None:
    job.environment["PATH"] = str(job.home)

    assert job.run() == (
        127,
        ["supervise: starting on n1,n2,n3", "supervise: srun cannot be started: No such file or directory"],
    )
