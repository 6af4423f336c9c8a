"""Whole runs of the example: killed, stopped, torn and misled, and what comes of it."""

import json
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from live_run import Run, StartRun, progress
from nodewatch_train import manifest
from nodewatch_train.signals import EXIT_DONE, EXIT_FAILED, EXIT_REFUSED, EXIT_STOPPED

STEPS = ("--steps", "30", "--checkpoint-every", "10")
SLOW = ("--step-seconds", "0.1")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoints"
    path.mkdir()
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the directory of one uninterrupted two-rank run is kept; filled by the first test that asks."""
    return tmp_path_factory.mktemp("finished")


@pytest.fixture
def uninterrupted(finished: Path, start_run: StartRun) -> Path:
    """The directory of an uninterrupted run of two ranks, with the checkpoints of steps 10, 20 and 30."""
    if not (finished / "progress.jsonl").exists():
        assert start_run(finished, 2, *STEPS).wait().codes == [EXIT_DONE] * 2
    return finished


def final_loss(directory: Path) -> str:
    [done] = progress(directory, "done")
    assert done["step"] == 30
    return str(done["loss_hex"])


def failures(directory: Path) -> dict[int, dict[str, Any]]:
    lines = (directory / "failures.jsonl").read_text().splitlines()
    return {line["rank"]: line for line in map(json.loads, lines)}


def notes(run: Run) -> list[str]:
    return [line for line in run.stderr[0].splitlines() if line.startswith("checkpoint: ")]


def test_three_ranks_killed_and_resumed_end_with_the_same_loss_to_the_last_bit(
    tmp_path: Path, directory: Path, start_run: StartRun
) -> None:
    # Three and not two: with two, a sum is the same in whichever order the ranks are added.
    through = tmp_path / "through"
    through.mkdir()
    assert start_run(through, 3, *STEPS).wait().codes == [EXIT_DONE] * 3

    killed = start_run(directory, 3, *STEPS, *SLOW)
    killed.reach(13)
    killed.send(signal.SIGKILL, 2)
    killed_at = time.monotonic()
    killed.wait()
    assert killed.codes == [EXIT_FAILED, EXIT_FAILED, -signal.SIGKILL]
    assert max(killed.ended_at.values()) - killed_at < 3.0
    assert {rank: line["kind"] for rank, line in failures(directory).items()} == {0: "peer_lost", 1: "peer_lost"}
    assert "a peer is gone" in killed.stderr[0]

    resumed = start_run(directory, 3, *STEPS, environment={"SLURM_RESTART_COUNT": "1"}).wait()
    assert resumed.codes == [EXIT_DONE] * 3
    started = progress(directory, "start")[-1]
    assert (started["restart"], started["resumed_from"], started["step"]) == (1, "step-00000010", 10)
    assert final_loss(directory) == final_loss(through)
    # The steps that were done twice agree too.
    losses = [(line["step"], line["loss_hex"]) for line in progress(directory, "step")]
    assert len(losses) > 30
    assert sorted(set(losses)) == [(line["step"], line["loss_hex"]) for line in progress(through, "step")]


def test_a_rank_that_is_asked_to_stop_takes_the_others_along_with_a_checkpoint(
    directory: Path, uninterrupted: Path, start_run: StartRun
) -> None:
    run = start_run(directory, 2, *STEPS, *SLOW)
    run.reach(4)
    run.send(signal.SIGUSR2, 1)
    run.wait()
    assert run.codes == [EXIT_STOPPED] * 2
    [saved] = progress(directory, "saved")
    assert 4 <= saved["step"] < 10
    assert start_run(directory, 2, *STEPS).wait().codes == [EXIT_DONE] * 2
    assert progress(directory, "start")[-1]["step"] == saved["step"]
    assert final_loss(directory) == final_loss(uninterrupted)


def test_a_long_pause_is_cut_short_by_sigterm(directory: Path, start_run: StartRun) -> None:
    run = start_run(directory, 1, "--steps", "30", "--step-seconds", "60")
    run.reach(1)
    run.send(signal.SIGTERM, 0)
    asked_at = time.monotonic()
    run.wait()
    assert run.codes == [EXIT_STOPPED]
    assert run.ended_at[0] - asked_at < 2.0


def test_sigterm_ends_a_rank_whose_peer_answers_no_more(directory: Path, start_run: StartRun) -> None:
    # A stopped process keeps its sockets open, as a machine does that lost its power or its network.
    run = start_run(directory, 2, *STEPS, *SLOW)
    run.reach(3)
    run.send(signal.SIGSTOP, 1)
    time.sleep(0.5)
    assert run.ranks[0].poll() is None
    run.send(signal.SIGTERM, 0)
    asked_at = time.monotonic()
    assert run.ranks[0].wait(timeout=10) == EXIT_FAILED
    assert time.monotonic() - asked_at < 3.0
    run.send(signal.SIGKILL, 1)
    assert "asked to stop, and the step did not end" in run.wait().stderr[0]


def test_a_peer_that_answers_no_more_is_given_up_after_the_timeout(directory: Path, start_run: StartRun) -> None:
    run = start_run(directory, 2, *STEPS, *SLOW, "--timeout-seconds", "6")
    run.reach(2)
    run.send(signal.SIGSTOP, 1)
    assert run.ranks[0].wait(timeout=20) == EXIT_FAILED
    run.send(signal.SIGKILL, 1)
    run.wait()
    assert failures(directory)[0]["kind"] == "peer_lost"


def test_a_torn_newest_checkpoint_is_skipped_for_the_one_before(
    directory: Path, uninterrupted: Path, start_run: StartRun
) -> None:
    shutil.copytree(uninterrupted, directory, dirs_exist_ok=True)
    (directory / "progress.jsonl").unlink()
    (directory / "step-00000030" / "__1_0.distcp").write_bytes(b"torn")
    run = start_run(directory, 2, *STEPS).wait()
    assert run.codes == [EXIT_DONE] * 2
    [note] = notes(run)
    assert "skipped step-00000030: __1_0.distcp has 4 bytes and should have" in note
    assert progress(directory, "start")[0]["resumed_from"] == "step-00000020"
    assert final_loss(directory) == final_loss(uninterrupted)
    assert manifest.verify(directory / "step-00000030").ok  # written anew over the torn one


def test_the_controllers_choice_is_honoured_and_checked(
    directory: Path, uninterrupted: Path, start_run: StartRun
) -> None:
    shutil.copytree(uninterrupted, directory, dirs_exist_ok=True)
    chosen = directory / "step-00000010"
    environment = {"NODEWATCH_RESUME_FROM": f"{chosen}/"}
    run = start_run(directory, 2, "--steps", "11", environment=environment).wait()
    assert run.codes == [EXIT_DONE] * 2
    [note] = notes(run)
    assert "asks for step-00000010: step-00000030, step-00000020 in" in note
    assert progress(directory, "start")[-1]["resumed_from"] == "step-00000010"
    assert manifest.verify(directory / "step-00000011").ok

    (chosen / ".metadata").unlink()
    run = start_run(directory, 2, *STEPS, environment=environment).wait()
    assert run.codes == [EXIT_DONE] * 2
    [note] = notes(run)
    assert "NODEWATCH_RESUME_FROM is not used: step-00000010: .metadata is missing; looking for the newest" in note
    assert progress(directory, "start")[-1]["resumed_from"] == "step-00000030"
    assert progress(directory, "done")[-1]["loss"] is None  # nothing was left to do


def test_checkpoints_of_another_model_or_other_data_are_refused_in_one_sentence(
    directory: Path, uninterrupted: Path, start_run: StartRun
) -> None:
    path = Path(shutil.copytree(uninterrupted / "step-00000010", directory / "step-00000010"))
    run = start_run(directory, 1, *STEPS, "--seed", "8").wait()
    assert run.codes == [EXIT_REFUSED]
    [line] = run.stderr[0].splitlines()
    assert "trained on the data of seed 0 and this run has --seed 8" in line

    found = manifest.verify(path).manifest
    assert found is not None
    (path / "manifest.json").write_bytes(replace(found, extra={**found.extra, "model": "another"}).render())
    run = start_run(directory, 2, *STEPS).wait()
    assert run.codes == [EXIT_REFUSED] * 2
    [line] = run.stderr[0].splitlines()
    assert "step-00000010 holds another model than this run's" in line
    assert failures(directory)[0]["kind"] == "refused"


def test_no_checkpoint_directory_is_said_in_one_sentence(tmp_path: Path, start_run: StartRun) -> None:
    run = start_run(tmp_path / "none", 1, *STEPS).wait()
    assert run.codes == [EXIT_FAILED]  # not refused: a file system that is not mounted looks the same
    [line] = run.stderr[0].splitlines()
    assert line.endswith("none does not exist: create it, or name another")


def test_the_rehearsed_bug_is_told_apart_from_those_who_only_lost_a_peer(directory: Path, start_run: StartRun) -> None:
    bug = ("--fail-at", "3", "--fail-rank", "1")
    run = start_run(directory, 2, *STEPS, *bug).wait()
    assert run.codes == [EXIT_FAILED] * 2
    assert "ValueError: rehearsed bug of the program at step 3" in run.stderr[1]
    assert "Traceback" in run.stderr[1]
    assert "Traceback" not in run.stderr[0]
    assert {rank: line["kind"] for rank, line in failures(directory).items()} == {0: "peer_lost", 1: "program"}
    assert [line["step"] for line in progress(directory, "step")] == [1, 2]

    again = start_run(directory, 2, *STEPS, *bug, "--fail-on", "first", environment={"SLURM_RESTART_COUNT": "1"})
    assert again.wait().codes == [EXIT_DONE] * 2


def test_a_sharded_run_resumes_with_another_number_of_ranks(directory: Path, start_run: StartRun) -> None:
    assert start_run(directory, 2, *STEPS[:1], "10", "--parallel", "fsdp2").wait().codes == [EXIT_DONE] * 2
    assert start_run(directory, 1, *STEPS[:1], "12").wait().codes == [EXIT_DONE]
    assert start_run(directory, 3, *STEPS[:1], "14", "--parallel", "fsdp2").wait().codes == [EXIT_DONE] * 3
    assert [line["step"] for line in progress(directory, "start")] == [0, 10, 12]
    losses = [line["loss"] for line in progress(directory, "step")]
    assert len(losses) == 14
    assert max(losses) < 5.7
