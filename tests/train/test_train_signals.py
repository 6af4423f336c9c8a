"""What asks a run to stop or to save, one process, with a clock of the test's own."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from live_run import TRAIN, StartRun, progress
from nodewatch_train.signals import EXIT_DONE, EXIT_STOPPED

# StopRequest takes the process's signals, so each lives in a process of its own.
PREAMBLE = """
import os, signal, sys
import torch
from pathlib import Path
from nodewatch_train.signals import Ask, StopRequest
cpu = torch.device("cpu")
now = [1000.0]
def agreed(stop): return stop.agree(cpu).name
"""


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Callable[[str], list[str]]]:
    """Runs a few lines and returns what they print, by word."""

    def run(code: str) -> list[str]:
        environment = os.environ | {"PYTHONPATH": str(TRAIN), "NOTICE": str(tmp_path / "notice")}
        ran = subprocess.run(
            [sys.executable, "-c", PREAMBLE + code], env=environment, capture_output=True, text=True, timeout=60
        )
        assert ran.returncode == 0, ran.stderr
        return ran.stdout.split()

    return run


def test_the_end_of_the_jobs_time_is_anticipated_by_what_a_save_takes(told: Callable[[str], list[str]]) -> None:
    assert told("""
stop = StopRequest(environment={"SLURM_JOB_END_TIME": "2000"}, clock=lambda: now[0])
print(agreed(stop))
now[0] = 1930.0
print(agreed(stop))
stop.saved(30.0)
print(agreed(stop), int(stop.margin))
""") == ["NOTHING", "NOTHING", "STOP", "120"]


def test_a_site_may_fix_the_margin_and_an_odd_variable_stops_nothing(told: Callable[[str], list[str]]) -> None:
    assert told("""
fixed = {"SLURM_JOB_END_TIME": "2000", "NODEWATCH_SAVE_MARGIN_S": "5"}
stop = StopRequest(environment=fixed, clock=lambda: now[0])
now[0] = 1994.0
print(agreed(stop))
now[0] = 1995.0
print(agreed(stop))
for text in ("", "soon", "0", "nan"):
    print(agreed(StopRequest(environment={"SLURM_JOB_END_TIME": text}, clock=lambda: 1e12)))
""") == ["NOTHING", "STOP", "NOTHING", "NOTHING", "NOTHING", "NOTHING"]


def test_a_notice_is_one_save_each_time_it_is_written_and_may_ask_for_the_end(
    told: Callable[[str], list[str]],
) -> None:
    assert told("""
notice = Path(os.environ["NOTICE"])
notice.write_text("an old one, from before this start")
stop = StopRequest(environment={"NODEWATCH_SAVE_NOW": str(notice)}, clock=lambda: now[0])
def later(): now[0] += 5; return agreed(stop)
print(later())
notice.unlink()
print(later())
notice.write_text("")
print(later(), later())
os.utime(notice, ns=(1, 1))
print(later(), later())
notice.write_text("stop\\n")
print(later(), later())
""") == ["NOTHING", "NOTHING", "SAVE", "NOTHING", "SAVE", "NOTHING", "STOP", "STOP"]


def test_nccls_signal_is_left_alone(told: Callable[[str], list[str]]) -> None:
    assert told("""
stop = StopRequest()
print(signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL)
stop.ask_to_save()
print(agreed(stop), agreed(stop))
os.kill(os.getpid(), signal.SIGUSR2)
print(agreed(stop))
sys.stdout.flush()
""") == ["True", "SAVE", "NOTHING", "STOP"]


def test_a_notice_on_one_node_makes_all_ranks_save_at_the_same_step_and_go_on(
    tmp_path: Path, start_run: StartRun
) -> None:
    directory = tmp_path / "checkpoints"
    directory.mkdir()
    notice = tmp_path / "notice"
    options = ("--steps", "30", "--checkpoint-every", "100", "--step-seconds", "0.1")
    run = start_run(directory, 2, *options, environment={"NODEWATCH_SAVE_NOW": str(notice)})
    run.reach(4)
    notice.write_text("")
    assert run.wait().codes == [EXIT_DONE] * 2
    first, last = progress(directory, "saved")
    assert 4 <= first["step"] < 30
    assert last["step"] == 30


def test_the_time_limit_ends_a_run_with_a_checkpoint_before_slurm_does(tmp_path: Path, start_run: StartRun) -> None:
    directory = tmp_path / "checkpoints"
    directory.mkdir()
    run = start_run(
        directory,
        2,
        *("--steps", "2000", "--checkpoint-seconds", "auto", "--step-seconds", "0.02"),
        environment={"SLURM_JOB_END_TIME": "1"},
    ).wait()
    assert run.codes == [EXIT_STOPPED] * 2
    assert [line["step"] for line in progress(directory, "saved")] == [1]


def test_saving_by_time_and_gradients_over_several_batches(tmp_path: Path, start_run: StartRun) -> None:
    directory = tmp_path / "checkpoints"
    directory.mkdir()
    options = ("--steps", "12", "--checkpoint-seconds", "0.2", "--step-seconds", "0.05", "--accumulate", "3")
    run = start_run(directory, 2, *options).wait()
    assert run.codes == [EXIT_DONE] * 2
    steps = [line["step"] for line in progress(directory, "saved")]
    assert 2 <= len(steps) < 12
    assert steps[-1] == 12
    assert "a checkpoint every" in run.stdout
    assert "tokens_per_s" in progress(directory, "step")[-1]


def test_a_tracker_that_is_not_installed_is_said(tmp_path: Path, start_run: StartRun) -> None:
    directory = tmp_path / "checkpoints"
    directory.mkdir()
    run = start_run(directory, 1, "--steps", "2", "--track", "wandb").wait()
    assert (
        run.stderr[0]
        .splitlines()[-1]
        .endswith("--track wandb needs the library wandb: install it, or leave --track out")
    )
