"""One check on one reading: deadline, exception to UNKNOWN, timing; and when each check is due."""

from __future__ import annotations

import contextlib
import random
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

from nodewatch.config.agent import CheckSettings
from nodewatch.errors import SensorError
from nodewatch.model.health import CheckResult, CheckStatus, Finding
from nodewatch.sensors.reading import Reading

CHECK_DEADLINE_S = 1.0
"""A check only judges values that are in memory: one that takes this long is broken."""


class _TooLateError(Exception):
    """The check did not end in time."""


def run_check(settings: CheckSettings, reading: Reading, *, deadline_s: float = CHECK_DEADLINE_S) -> CheckResult:
    """How the check judges `reading`. Never raises: whatever goes wrong is UNKNOWN with one sentence."""
    name = settings.spec.name
    if reading.not_applicable is not None:
        return CheckResult(check=name, status=CheckStatus.NOT_APPLICABLE)
    if reading.error is not None or reading.sample is None:
        return CheckResult(check=name, status=CheckStatus.UNKNOWN, error=reading.error or "its sensor gave no sample")
    began = time.perf_counter()
    error: str | None = None
    findings: tuple[Finding, ...] = ()
    try:
        with _alarm(deadline_s):
            findings = settings.spec.run(reading.sample, settings.thresholds)
    except SensorError as why:
        error = str(why)
    except _TooLateError:
        error = f"the check did not end within {deadline_s:g} s: switch it off under [checks.{name}] and report it"
    # A check is code that others may write: no mistake in it may end the agent.
    except Exception as why:
        error = f"the check failed with {type(why).__name__}: {why}"
    seconds = time.perf_counter() - began
    if error is not None:
        return CheckResult(check=name, status=CheckStatus.UNKNOWN, error=error, seconds=seconds)
    status = CheckStatus.FINDINGS if findings else CheckStatus.OK
    return CheckResult(check=name, status=status, findings=findings, seconds=seconds)


@contextlib.contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(_signal: int, _frame: FrameType | None) -> None:
        raise _TooLateError

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@dataclass(slots=True, kw_only=True)
class Cadence:
    """When something that happens every `period_s` is due next, a little early or late by chance.

    Without the chance a thousand nodes that booted together would ask their file system in the same millisecond for ever.
    """

    period_s: float
    random: random.Random
    next_at: float = 0.0

    def is_due(self, now: float) -> bool:
        """Whether it is time (monotonic seconds)."""
        return now >= self.next_at

    def done(self, now: float) -> None:
        """It was done now: the next time is a period later, give or take 5 %."""
        self.next_at = now + self.period_s * self.random.uniform(0.95, 1.05)
