"""The lines that the controller reads, as docs/interfaces.md section 5 has them."""

import json
from pathlib import Path

import pytest
from nodewatch_train.progress import ProgressLog, append_line


def test_the_lines_are_those_of_the_contract(tmp_path: Path) -> None:
    log = ProgressLog(tmp_path, rank=0, restart=1)
    log.start(world_size=3, resumed_from="step-00000040", step=40)
    log.step(41, 2.3125)
    log.saved(60, "step-00000060", 0.04)
    log.done(200, 0.5)
    lines = [json.loads(line) for line in (tmp_path / "progress.jsonl").read_text().splitlines()]
    assert all(isinstance(line.pop("t"), float) for line in lines)
    assert 0 <= lines[1].pop("step_s") < 60
    assert lines == [
        {"event": "start", "restart": 1, "world_size": 3, "resumed_from": "step-00000040", "step": 40},
        {"event": "step", "restart": 1, "step": 41, "loss": 2.3125, "loss_hex": "0x1.2800000000000p+1"},
        {"event": "saved", "restart": 1, "step": 60, "checkpoint": "step-00000060", "seconds": 0.04},
        {"event": "done", "restart": 1, "step": 200, "loss": 0.5, "loss_hex": "0x1.0000000000000p-1"},
    ]


def test_the_other_ranks_write_nothing(tmp_path: Path) -> None:
    ProgressLog(tmp_path, rank=1, restart=0).step(1, 1.0)
    assert list(tmp_path.iterdir()) == []


def test_half_a_line_of_a_killed_run_is_not_continued(tmp_path: Path) -> None:
    (tmp_path / "progress.jsonl").write_text('{"t":1,"event":"st')
    ProgressLog(tmp_path, rank=0, restart=1).step(1, 1.0)
    half, whole = (tmp_path / "progress.jsonl").read_text().splitlines()
    assert half == '{"t":1,"event":"st'
    assert json.loads(whole)["step"] == 1


def test_a_loss_that_is_no_number_stays_json(tmp_path: Path) -> None:
    ProgressLog(tmp_path, rank=0, restart=0).step(1, float("nan"))
    line = json.loads((tmp_path / "progress.jsonl").read_text(), parse_constant=pytest.fail)
    assert (line["loss"], line["loss_hex"]) == (None, "nan")


def test_a_record_that_cannot_be_written_is_said_once_and_stops_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = ProgressLog(tmp_path / "gone", rank=0, restart=0)
    log.step(1, 1.0)
    log.step(2, 1.0)
    assert capsys.readouterr().err.count("cannot record progress") == 1
    with pytest.raises(OSError, match="No such file"):
        append_line(tmp_path / "gone" / "x", {})


def test_a_step_says_how_long_it_took_and_what_lies_between_is_no_step(tmp_path: Path) -> None:
    log = ProgressLog(tmp_path, rank=0, restart=0)
    log.step(1, 1.0, tokens_per_s=1000.5, broken=float("inf"))
    log.step(2, 1.0)
    log.phase("saving", 2)
    log.saved(2, "step-00000002", 1.5, held_seconds=0.25)
    log.step(3, 1.0)
    lines = [json.loads(line) for line in (tmp_path / "progress.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["step", "step", "phase", "saved", "step"]
    assert ["step_s" in line for line in lines] == [False, True, False, False, False]
    assert lines[0]["tokens_per_s"] == 1000.5
    assert "broken" not in lines[0]
    assert lines[2]["phase"] == "saving"
    assert lines[3]["held_seconds"] == 0.25
