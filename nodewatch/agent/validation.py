"""One deep validation of the node, asked for by the controller: fresh readings, and writing to the shared file systems."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nodewatch.agent.runner import run_check
from nodewatch.config.agent import CheckSettings
from nodewatch.model.health import CheckResult, CheckStatus
from nodewatch.model.samples import MountSample
from nodewatch.policy.verdicts import passed
from nodewatch.sensors import write_probe
from nodewatch.sensors.mounts import MountSensor
from nodewatch.sensors.reading import Reading

_KEPT_ANSWERS = 64
_REPEAT_S = 2.0


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
        return not self.awaited or now >= self.until

    def finish(self) -> tuple[CheckResult, ...]:
        """All results; a check that did not answer in time is unknown."""
        late = {
            name: CheckResult(
                check=name, status=CheckStatus.UNKNOWN, error="it did not answer in the time of the validation"
            )
            for name in self.awaited
        }
        return tuple(result for _, result in sorted({**self.results, **late}.items()))


def content_of(key: str, results: Sequence[CheckResult]) -> dict[str, Any]:
    """What the event `validated` says."""
    return {"key": key, "passed": passed(results), "results": [result.to_json() for result in results]}


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
