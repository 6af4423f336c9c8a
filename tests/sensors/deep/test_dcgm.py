"""DCGM's diagnostic through the stand-in for dcgmi: passes, failures, no host engine, and a stop that it is told of."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nodewatch.checks.dcgm_coverage import dcgm_coverage
from nodewatch.checks.dcgm_diag import dcgm_diag
from nodewatch.model.gpu_samples import DcgmDiagSample
from nodewatch.sensors.deep import dcgm
from nodewatch.sensors.deep.tool import ToolSensor
from nodewatch.sensors.reading import Reading

Told = Callable[..., Path]
Run = Callable[..., Reading]


def sensor(level: int = 2, deadline_s: float = 30.0) -> ToolSensor:
    return ToolSensor(
        "dcgm", dcgm.READS, lambda: dcgm.procedure("dcgmi", level), deadline_s=deadline_s, grace_s=dcgm.GRACE_S
    )


def asked(state: Path) -> list[str]:
    return state.with_suffix(".log").read_text().splitlines()


@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_a_pass(told: Told, run: Run, level: int) -> None:
    reading = run(sensor(level))
    assert isinstance(reading.sample, DcgmDiagSample), reading
    assert list(dcgm_diag(reading.sample)) == []
    if level > 1:
        assert list(dcgm_coverage(reading.sample)) == []
    assert asked(told()) == ["dcgmi discovery -l", f"dcgmi diag -r {level} -j"]


def test_a_gpu_that_fails(told: Told, run: Run) -> None:
    told(dcgm={"fail": {"gpu": 3, "test": "memory"}})
    reading = run(sensor())
    assert isinstance(reading.sample, DcgmDiagSample), reading
    (finding,) = dcgm_diag(reading.sample)
    assert finding.severity.word == "fatal" and finding.subject == reading.sample.serial_of("GPU", 3)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"no_engine": True}, "start it with systemctl start nvidia-dcgm"),
        ({"exit": 217}, "two at once are refused"),
        ({"print": "not what it should be"}, "run it with -j"),
        ({"print": "{", "exit": 226}, "226"),
    ],
)
def test_what_proves_nothing(told: Told, run: Run, fault: dict[str, object], words: str) -> None:
    told(dcgm=fault)
    error = run(sensor()).error
    assert error is not None and words in error


def test_an_exit_code_with_an_error_in_the_document_is_no_pass(told: Told, run: Run) -> None:
    told(dcgm={"exit": 226})
    reading = run(sensor())
    assert isinstance(reading.sample, DcgmDiagSample) and reading.sample.runtime_error
    assert list(dcgm_diag(reading.sample)) == []


def test_not_installed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    error = run(sensor()).error
    assert error is not None and "dcgmi is not installed" in error


def stop(tool: ToolSensor, state: Path) -> Reading:
    tool.start(time.monotonic())
    log = state.with_suffix(".log")
    is_stopped = False
    for _ in range(1500):
        reading = tool.result(time.monotonic())
        if reading is not None:
            return reading
        if not is_stopped and log.exists() and "diag" in log.read_text():
            time.sleep(0.3)
            tool.stop("it was stopped: the node is wanted for a job", time.monotonic())
            is_stopped = True
        time.sleep(0.02)
    raise AssertionError("no reading came")


def test_the_host_engine_is_told_when_it_is_stopped(told: Told) -> None:
    state = told(dcgm={"hang": True})
    assert stop(sensor(), state).error == "it was stopped: the node is wanted for a job"
    assert asked(state)[-1] == "dcgmi stopped"


def test_one_that_does_not_listen_is_killed(told: Told) -> None:
    state = told(dcgm={"hang": True, "deaf": True})
    tool = ToolSensor("dcgm", dcgm.READS, lambda: dcgm.procedure("dcgmi", 1), deadline_s=30.0, grace_s=0.3)
    assert stop(tool, state).error == "it was stopped: the node is wanted for a job"


def test_the_host_engine_is_told_when_it_is_late(told: Told, run: Run) -> None:
    state = told(dcgm={"hang": True})
    error = run(sensor(deadline_s=2.0)).error
    assert error is not None and "within 2 s" in error
    assert asked(state)[-1] == "dcgmi stopped"
