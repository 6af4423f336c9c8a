"""Validations of the node, asked for by the controller: fresh readings, writing to the shared file systems, deep diagnostics.

A quick one (suite `quick`) reads everything anew. A deep one runs the long tools as well, and gives way to a job.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from nodewatch.agent.deep import DeepRun, DeepTool
from nodewatch.agent.runner import run_check
from nodewatch.checks._api import Phase
from nodewatch.config.agent import CheckSettings
from nodewatch.model.health import CheckResult, CheckStatus, Finding
from nodewatch.model.samples import KmsgSample, MountSample
from nodewatch.policy.verdicts import passed
from nodewatch.sensors import write_probe
from nodewatch.sensors.mounts import MountSensor
from nodewatch.sensors.reading import PolledSensor, Reading

_LOG = logging.getLogger(__name__)
_KEPT_ANSWERS = 64
_REPEAT_S = 2.0
_JOB_RACE_S = 30.0
"""The controller's picture of a node is seconds old: a job that was let in so recently is not in it yet."""
SUITES = ("quick", "deep")


def write_sensor(paths: Sequence[str], *, deadline_s: float) -> MountSensor:
    """The mounts, asked by writing instead of by their size."""
    script = str(Path(write_probe.__file__).resolve())
    return MountSensor(paths, deadline_s=deadline_s, argv=(sys.executable, "-I", "-S", script))


def judge_writes(settings: Iterable[CheckSettings], reading: Reading) -> list[CheckResult]:
    """The checks of mounts on the reading of the writing sensor, under a name of their own."""
    return [
        replace(run_check(each, reading), check=f"{each.spec.name}.write")
        for each in settings
        if each.spec.reads is MountSample
    ]


@dataclass(slots=True, kw_only=True)
class Validation:
    """A validation that is under way. It is done when nothing is awaited or the time is over."""

    key: str
    began_at: float
    until: float
    awaited: set[str]
    """Names of the checks, and of the writing sensor, whose fresh answer is missing."""
    suite: str = "deep"
    deep: DeepRun | None = None
    """The long tools; None in a quick validation."""
    gave_way_to: str = ""
    """The job for which the long tools were stopped."""
    results: dict[str, CheckResult] = field(default_factory=dict)

    def take(self, results: Iterable[CheckResult], *, began_at: float, also: str | None = None) -> None:
        """Use `results` when their reading began after the request: an older one proves nothing about the repair."""
        if began_at < self.began_at:
            return
        for result in results:
            self.results[result.check] = result
            self.awaited.discard(result.check)
        if also is not None:
            self.awaited.discard(also)

    def is_done(self, now: float) -> bool:
        """Whether the answer can be given."""
        is_deep_done = self.deep is None or self.deep.is_done
        return (not self.awaited and is_deep_done) or now >= self.until

    def finish(self) -> tuple[CheckResult, ...]:
        """All results; a check that did not answer in time is unknown."""
        if self.deep is not None:
            self.deep.close()
        late = {
            name: CheckResult(
                check=name, status=CheckStatus.UNKNOWN, error="it did not answer in the time of the validation"
            )
            for name in self.awaited
        }
        return tuple(result for _, result in sorted({**self.results, **late}.items()))


def content_of(
    validation: Validation, results: Sequence[CheckResult], *, not_run: Sequence[tuple[str, str]], now: float
) -> dict[str, Any]:
    """What the event `validated` says. `not_run` holds (tool, why) of diagnostics that this machine has not."""
    return {
        "key": validation.key,
        "suite": validation.suite,
        "passed": passed(results),
        "gave_way_to": validation.gave_way_to,
        "seconds": round(now - validation.began_at, 1),
        "results": [result.to_json() for result in results],
        "not_run": [list(item) for item in not_run] if validation.deep is not None else [],
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """An answer, the event that carried it last, and when that was (monotonic seconds)."""

    content: Mapping[str, Any]
    event_id: str
    at: float


class Answers:
    """The answers given, by the key of their request: a request that is repeated is answered again and not run again."""

    def __init__(self) -> None:
        self._given: dict[str, Given] = {}

    def keep(self, key: str, given: Given) -> None:
        """Remember the answer to `key`; the oldest beyond 64 are forgotten."""
        self._given.pop(key, None)
        self._given[key] = given
        while len(self._given) > _KEPT_ANSWERS:
            del self._given[next(iter(self._given))]

    def given(self, key: str) -> Given | None:
        """The answer to `key`, None when there was none yet."""
        return self._given.get(key)

    def may_repeat(self, key: str, now: float) -> bool:
        """Whether the answer to `key` may be sent again.

        Every event is sent at once and its answer may hold the same request: without a pause the two would run in a circle.
        """
        given = self._given.get(key)
        return given is not None and now >= given.at + _REPEAT_S


class Host(Protocol):
    """What a validation needs of the agent's loop."""

    def judge(self, settings: CheckSettings, reading: Reading) -> CheckResult:
        """One check on one reading, counted."""

    def fold(self, results: Sequence[CheckResult]) -> None:
        """Results into the verdict."""

    def log_reading(self) -> Reading:
        """The kernel log, read now."""

    def standing(self, check: str) -> tuple[Finding, ...]:
        """The findings of a check that stand."""

    def begin(self, sensor: PolledSensor, now: float) -> None:
        """Begin a reading of a polled sensor unless one is under way."""

    def sensors(self) -> Iterable[PolledSensor]:
        """The polled sensors."""

    def tell(self, content: Mapping[str, Any]) -> str:
        """Emit the event `validated`; returns its id."""

    def is_told(self, event_id: str) -> bool:
        """Whether the controller has accepted that event."""


class Validator:
    """Takes requests, runs one validation at a time, and answers each key once. `now` is monotonic seconds."""

    def __init__(
        self,
        *,
        host: Host,
        checks: Mapping[str, CheckSettings],
        tools: Sequence[DeepTool],
        not_run: Sequence[tuple[str, str]],
        writer: PolledSensor | None,
        timeout_s: float,
        clear_after: int,
    ) -> None:
        """`tools` are the deep diagnostics of this machine; `not_run` those that it has not, with the reason."""
        self._host = host
        on_demand = {tool.reads for tool in tools}
        self._deep_checks = {name: each for name, each in checks.items() if each.spec.reads in on_demand}
        self._checks = {name: each for name, each in checks.items() if name not in self._deep_checks}
        self._tools = tuple(tools)
        self._not_run = tuple(not_run)
        self._writer = writer
        self._write_began = 0.0
        self._timeout_s = timeout_s
        self._clear_after = clear_after
        self._waiting: dict[str, str] = {}
        self._answers = Answers()
        self._jobs: dict[str, float] = {}
        self.now: Validation | None = None
        """The validation under way."""

    def ask(self, key: str, suite: str, now: float) -> bool:
        """Take a request; True when it is new. One that was answered is answered again when the answer may be lost."""
        given = self._answers.given(key)
        if given is not None:
            if self._answers.may_repeat(key, now) and self._host.is_told(given.event_id):
                self._answer(key, given.content, now)
            return False
        if key in self._waiting or (self.now is not None and self.now.key == key):
            return False
        self._waiting[key] = suite
        return True

    def job_starts(self, job_id: str, now: float) -> None:
        """A job was let in: long tools give way to it at once."""
        self._jobs[job_id] = now
        validation = self.now
        if validation is None or validation.deep is None or validation.deep.is_done or validation.gave_way_to:
            return
        validation.gave_way_to = job_id
        _LOG.info("validation %s gives way to job %s", validation.key, job_id)
        for tool, reading in validation.deep.give_way(f"it was stopped: job {job_id} starts on this node", now):
            self._judge(validation, tool, reading)

    def job_ended(self, job_id: str) -> None:
        """A job's epilog asks."""
        self._jobs.pop(job_id, None)

    def is_job_near(self, now: float) -> bool:
        """Whether a job was let in so recently that the controller's picture may lack it."""
        return bool(self._jobs_near(now))

    def _jobs_near(self, now: float) -> list[str]:
        return [job for job, at in self._jobs.items() if now - at < _JOB_RACE_S]

    def awaits(self, sensor: PolledSensor) -> bool:
        """Whether the validation under way waits for a reading of `sensor`."""
        return self.now is not None and any(
            each.spec.name in self.now.awaited for each in self._checks.values() if each.spec.reads is sensor.reads
        )

    def step(self, now: float) -> None:
        """Begin what waits, go on with what runs, answer what is done."""
        # Asked even when nobody waits: what a validation that ran out of time left behind is no answer to the next.
        written = self._writer.result(now) if self._writer is not None else None
        validation = self.now
        if validation is not None:
            if validation.deep is not None:
                for tool, reading in validation.deep.step(now):
                    self._judge(validation, tool, reading)
            if written is not None and self._writer is not None:
                results = judge_writes(self._checks.values(), written)
                validation.take(results, began_at=self._write_began, also=f"{self._writer.name}.write")
            if validation.is_done(now):
                self._end(validation, now)
        if self.now is None and self._waiting:
            key = next(iter(self._waiting))
            self._start(key, self._waiting.pop(key), now)

    def filenos(self) -> tuple[int, ...]:
        """Descriptors that `step` waits for."""
        fds = () if self._writer is None else self._writer.filenos()
        return fds if self.now is None or self.now.deep is None else (*fds, *self.now.deep.filenos())

    def due_at(self) -> float | None:
        """When `step` is due at the latest; None while nothing is under way."""
        if self.now is None:
            return None
        times = [self.now.until]
        times += [at for at in (self._writer.due_at() if self._writer else None,) if at is not None]
        times += [at for at in (self.now.deep.due_at() if self.now.deep else None,) if at is not None]
        return min(times)

    def progress(self, now: float) -> dict[str, Any] | None:
        """How far the validation is, for the controller; None while there is none."""
        validation = self.now
        if validation is None:
            return None
        deep = {} if validation.deep is None else validation.deep.progress(now)
        return {"key": validation.key, "suite": validation.suite, **deep}

    def close(self) -> None:
        """End what runs, without waiting for it."""
        if self.now is not None and self.now.deep is not None:
            self.now.deep.close()
        if self._writer is not None:
            self._writer.close()

    def _start(self, key: str, suite: str, now: float) -> None:
        quick = [each for each in self._checks.values() if Phase.DEEP in each.spec.phases]
        recent = self._jobs_near(now)
        deep = DeepRun(() if recent else self._tools, now=now) if suite == "deep" else None
        time_s = self._timeout_s + (0.0 if deep is None else sum(tool.deadline_s for tool in self._tools))
        awaited = {each.spec.name for each in quick}
        validation = Validation(key=key, began_at=now, until=now + time_s, awaited=awaited, suite=suite, deep=deep)
        self.now = validation
        if deep is not None and recent:
            validation.gave_way_to = recent[-1]
            for tool in self._tools:
                self._judge(validation, tool, Reading(error=f"it was not begun: job {recent[-1]} started on this node"))
        reading = self._host.log_reading()
        results = [self._host.judge(each, reading) for each in quick if each.spec.reads is KmsgSample]
        self._host.fold(results)
        validation.take([self._with_standing(result) for result in results], began_at=now)
        for sensor in self._host.sensors():
            if self.awaits(sensor):
                self._host.begin(sensor, now)
        if self._writer is not None:
            validation.awaited.add(f"{self._writer.name}.write")
            self._write_began = now
            self._writer.start(now)
        if deep is not None:
            for tool, reading in deep.step(now):
                self._judge(validation, tool, reading)

    def _with_standing(self, result: CheckResult) -> CheckResult:
        # No new line in the kernel log proves nothing about a fault that an old one announced.
        standing = self._host.standing(result.check)
        if result.status in (CheckStatus.OK, CheckStatus.FINDINGS) and standing:
            return replace(result, status=CheckStatus.FINDINGS, findings=standing)
        return result

    def _judge(self, validation: Validation, tool: DeepTool, reading: Reading) -> None:
        results = [
            self._host.judge(each, reading) for each in self._deep_checks.values() if each.spec.reads is tool.reads
        ]
        self._host.fold(results)
        validation.take(results, began_at=validation.began_at)

    def _end(self, validation: Validation, now: float) -> None:
        self.now = None
        results = validation.finish()
        content = content_of(validation, results, not_run=self._not_run, now=now)
        if content["passed"]:
            # A repair was proved: what is gone must not keep the node out until the next readings say so too.
            good = [result for result in results if result.status is CheckStatus.OK]
            for _ in range(self._clear_after):
                self._host.fold(good)
        _LOG.info("validation %s: passed is %s", validation.key, content["passed"])
        self._answer(validation.key, content, now)

    def _answer(self, key: str, content: Mapping[str, Any], now: float) -> None:
        self._answers.keep(key, Given(content=content, event_id=self._host.tell(content), at=now))
