"""Validations on their own: which tools run, in what order, and how they give way to a job."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from nodewatch.agent.deep import DeepRun
from nodewatch.agent.runner import run_check
from nodewatch.agent.validation import Validator
from nodewatch.checks._api import load_checks
from nodewatch.config.agent import CheckSettings
from nodewatch.model.fabric_samples import FiInfoSample, FiPingpongSample, NcclSample
from nodewatch.model.health import CheckResult, Finding
from nodewatch.sensors.reading import PolledSensor, Reading


@dataclass
class Tool:
    """A diagnostic that ends when the test says so."""

    name: str
    reads: type[Any]
    deadline_s: float = 10.0
    ends_with: Reading | None = None
    is_running: bool = False
    stopped: str = ""

    def start(self, now: float) -> None:
        assert not self.is_running
        self.is_running = True

    def filenos(self) -> tuple[int, ...]:
        return ()

    def due_at(self) -> float | None:
        return None

    def result(self, now: float) -> Reading | None:
        if not self.is_running or (self.ends_with is None and not self.stopped):
            return None
        self.is_running = False
        return self.ends_with or Reading(error=self.stopped)

    def stop(self, why: str, now: float) -> None:
        self.stopped = why

    def close(self) -> None:
        self.is_running = False


@dataclass
class Host:
    """The loop, as far as a validation sees it."""

    told: list[Mapping[str, Any]] = field(default_factory=list)
    folded: list[CheckResult] = field(default_factory=list)

    def judge(self, settings: CheckSettings, reading: Reading) -> CheckResult:
        return run_check(settings, reading)

    def fold(self, results: Sequence[CheckResult]) -> None:
        self.folded += results

    def log_reading(self) -> Reading:
        return Reading(error="no log here")

    def standing(self, check: str) -> tuple[Finding, ...]:
        return ()

    def begin(self, sensor: PolledSensor, now: float) -> None:
        raise AssertionError("there is no polled sensor")

    def sensors(self) -> Iterable[PolledSensor]:
        return ()

    def tell(self, content: Mapping[str, Any]) -> str:
        self.told.append(content)
        return f"boot:{len(self.told)}"

    def is_told(self, event_id: str) -> bool:
        return True


CHECKS = {
    name: CheckSettings(spec=spec, every_s=spec.every_s, thresholds=None)
    for name, spec in load_checks().items()
    if spec.reads in (NcclSample, FiInfoSample)
}


def validator(host: Host, *tools: Tool) -> Validator:
    return Validator(
        host=host,
        checks={name: each for name, each in CHECKS.items() if each.spec.reads in {tool.reads for tool in tools}},
        tools=tools,
        not_run=[("dcgm", "dcgmi is not installed")],
        writer=None,
        timeout_s=60.0,
        clear_after=2,
    )


def statuses(content: Mapping[str, Any]) -> dict[str, str]:
    return {result["check"]: result["status"] for result in content["results"]}


def test_tools_run_one_after_the_other_and_the_answer_names_what_was_not_run() -> None:
    host = Host()
    nccl, info = Tool("nccl", NcclSample), Tool("fi_info", FiInfoSample)
    under_test = validator(host, nccl, info)
    assert under_test.ask("k", "deep", 0.0)
    under_test.step(1.0)

    assert (nccl.is_running, info.is_running) == (True, False)
    assert under_test.progress(3.0) == {"key": "k", "suite": "deep", "tool": "nccl", "done": 0, "of": 2, "seconds": 2.0}

    nccl.ends_with = Reading(not_applicable="no GPU")
    under_test.step(4.0)
    assert (nccl.is_running, info.is_running, host.told) == (False, True, [])

    info.ends_with = Reading(error="fi_info could not be run")
    under_test.step(5.0)
    (content,) = host.told
    assert content["passed"] is None
    assert content["not_run"] == [["dcgm", "dcgmi is not installed"]]
    assert content["seconds"] == 4.0
    assert set(statuses(content).values()) == {"not_applicable", "unknown"}


def test_a_quick_validation_runs_no_tool() -> None:
    host, nccl = Host(), Tool("nccl", NcclSample)
    under_test = validator(host, nccl)
    under_test.ask("k", "quick", 0.0)
    under_test.step(1.0)
    under_test.step(2.0)

    assert not nccl.is_running
    assert (host.told[0]["suite"], host.told[0]["not_run"], host.told[0]["results"]) == ("quick", [], [])


def test_a_job_ends_the_tool_that_runs_and_those_that_wait_are_not_begun() -> None:
    host = Host()
    nccl, info = Tool("nccl", NcclSample), Tool("fi_info", FiInfoSample)
    under_test = validator(host, nccl, info)
    under_test.ask("k", "deep", 0.0)
    under_test.step(1.0)
    under_test.job_starts("17", 2.0)
    under_test.step(2.1)

    (content,) = host.told
    assert nccl.stopped == "it was stopped: job 17 starts on this node"
    assert not info.is_running
    assert (content["passed"], content["gave_way_to"]) == (None, "17")
    assert set(statuses(content).values()) == {"unknown"}


def test_a_request_that_crosses_a_job_on_its_way_is_answered_without_running_anything() -> None:
    host, nccl = Host(), Tool("nccl", NcclSample)
    under_test = validator(host, nccl)
    under_test.job_starts("17", 0.0)
    under_test.ask("k", "deep", 1.0)
    under_test.step(1.0)
    under_test.step(1.1)

    assert not nccl.is_running
    assert (host.told[0]["passed"], host.told[0]["gave_way_to"]) == (None, "17")

    under_test.job_ended("17")
    under_test.ask("again", "deep", 2.0)
    under_test.step(2.0)
    assert nccl.is_running


def test_a_tool_that_never_ends_is_closed_when_the_time_of_all_tools_is_over() -> None:
    host, nccl = Host(), Tool("nccl", NcclSample, deadline_s=100.0)
    under_test = validator(host, nccl)
    under_test.ask("k", "deep", 0.0)
    under_test.step(0.0)
    assert under_test.due_at() == pytest.approx(160.0)
    under_test.step(161.0)

    assert not nccl.is_running
    assert host.told[0]["passed"] is None
    assert under_test.due_at() is None


def test_requests_wait_for_each_other_and_each_is_answered_once() -> None:
    host = Host()
    under_test = validator(host, Tool("nccl", NcclSample, ends_with=Reading(not_applicable="no GPU")))
    assert under_test.ask("a", "deep", 0.0)
    assert under_test.ask("b", "quick", 0.0)
    assert not under_test.ask("a", "deep", 0.0)
    for now in (1.0, 1.1, 1.2, 1.3):
        under_test.step(now)

    assert [content["key"] for content in host.told] == ["a", "b"]
    assert not under_test.ask("a", "deep", 1.4)
    assert len(host.told) == 2, "repeated at once it would run in a circle with the controller"
    under_test.ask("a", "deep", 9.0)
    assert [content["key"] for content in host.told] == ["a", "b", "a"]


def test_a_sample_that_no_tool_of_a_run_reads_is_left_to_the_polled_checks() -> None:
    run = DeepRun([Tool("pingpong", FiPingpongSample, ends_with=Reading(error="late"))], now=0.0)
    assert [(tool.name, reading.error) for tool, reading in run.step(0.0)] == [("pingpong", "late")]
    assert run.is_done
    assert run.progress(1.0)["done"] == 1
