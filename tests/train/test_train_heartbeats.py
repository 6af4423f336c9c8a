"""The ranks' heartbeats, read as the agent reads them."""

import os
from pathlib import Path

import pytest
from live_run import StartRun
from nodewatch_train.heartbeats import BYTES, Heartbeat
from nodewatch_train.progress import ProgressLog
from nodewatch_train.signals import EXIT_DONE, EXIT_STOPPED

from nodewatch.model.heartbeats import MOST_BYTES, Beat, Phase, parse_beat


def beat(directory: Path, rank: int = 3) -> Beat:
    raw = (directory / str(rank)).read_bytes()
    assert len(raw) == BYTES == MOST_BYTES
    return parse_beat(raw, rank=rank)


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "heartbeats"
    path.mkdir()
    monkeypatch.setenv("NODEWATCH_HEARTBEATS", str(path))
    return path


def test_a_rank_says_what_it_does(directory: Path) -> None:
    heart = Heartbeat(rank=3)
    assert (beat(directory).phase, beat(directory).step, beat(directory).pid) == (Phase.STARTING, 0, os.getpid())
    heart.step(1)
    assert (beat(directory).phase, beat(directory).step, beat(directory).step_s) == (Phase.STEP, 1, None)
    heart.step(2, compute_s=0.25)
    told = beat(directory)
    assert told.step_s is not None
    assert (told.step, told.compute_s) == (2, 0.25)
    assert told.at > 1.7e9
    with heart.saving():
        assert (beat(directory).phase, beat(directory).step) == (Phase.SAVING, 2)
    assert beat(directory).phase is Phase.STEP
    heart.phase("evaluating")
    assert beat(directory).phase is Phase.SAVING
    heart.step(3)
    assert (beat(directory).phase, beat(directory).step_s) == (Phase.STEP, None)  # the evaluation was no step
    heart.phase("done", 3)
    assert beat(directory).phase is Phase.DONE


def test_the_record_of_progress_keeps_the_heartbeat_of_every_rank(directory: Path, tmp_path: Path) -> None:
    logs = [ProgressLog(tmp_path, rank=rank, restart=0) for rank in (0, 3)]
    for log in logs:
        log.start(world_size=4, resumed_from=None, step=40)
    assert [(beat(directory, rank).phase, beat(directory, rank).step) for rank in (0, 3)] == [(Phase.STARTING, 40)] * 2
    for log in logs:
        log.step(41, 0.5)
    assert [beat(directory, rank).step for rank in (0, 3)] == [41, 41]
    logs[1].phase("saving", 41)
    assert beat(directory).phase is Phase.SAVING
    logs[1].done(42, 0.5)
    assert (beat(directory).phase, beat(directory).step) == (Phase.DONE, 42)


@pytest.mark.parametrize("given", ["missing", "a file", "a link", ""])
def test_a_heartbeat_that_cannot_be_written_stops_nothing(
    tmp_path: Path, given: str, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "place"
    if given == "a file":
        place.write_text("")
    if given == "a link":
        place.mkdir()
        (place / "0").symlink_to(tmp_path / "elsewhere")
    heart = Heartbeat(rank=0, environment={"NODEWATCH_HEARTBEATS": str(place) if given else ""})
    heart.step(1)
    heart.phase("done")
    said = capsys.readouterr().err
    assert said.count("going on without") == (1 if given else 0)
    assert not (tmp_path / "elsewhere").exists()


def test_a_live_run_beats_on_all_ranks_until_it_is_done(directory: Path, tmp_path: Path, start_run: StartRun) -> None:
    checkpoints = tmp_path / "checkpoints"
    checkpoints.mkdir()
    environment = {"NODEWATCH_HEARTBEATS": str(directory)}
    options = ("--steps", "12", "--checkpoint-every", "5")
    run = start_run(checkpoints, 2, *options, "--step-seconds", "0.1", environment=environment)
    run.reach(6)
    midway = [beat(directory, rank) for rank in (0, 1)]
    assert [told.pid for told in midway] == [rank.pid for rank in run.ranks]
    assert all(told.step >= 5 and told.phase is Phase.STEP and told.step_s for told in midway)
    assert run.wait().codes == [EXIT_DONE] * 2
    assert [(beat(directory, rank).phase, beat(directory, rank).step) for rank in (0, 1)] == [(Phase.DONE, 12)] * 2


def test_a_run_that_was_asked_to_stop_was_saving_last(directory: Path, tmp_path: Path, start_run: StartRun) -> None:
    environment = {"NODEWATCH_HEARTBEATS": str(directory), "SLURM_JOB_END_TIME": "1"}
    assert start_run(tmp_path, 1, "--steps", "9", environment=environment).wait().codes == [EXIT_STOPPED]
    assert (beat(directory, 0).phase, beat(directory, 0).step) == (Phase.SAVING, 1)
