"""Counts of what the agent did since its start, for the metrics."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import BinaryIO

from nodewatch.model.health import CheckResult, CheckStatus
from nodewatch.policy.verdicts import HookAnswer

_LOG = logging.getLogger(__name__)
_MOST_AT_ONCE = 1 << 20


class Tally:
    """Runs of checks and answers to hooks. Written by the main loop, read by the metrics server's thread."""

    def __init__(self) -> None:
        self.check_seconds: dict[str, float] = {}
        self.check_runs: dict[str, int] = {}
        self.check_unknowns: dict[str, int] = {}
        self.hook_answers: dict[tuple[str, str], int] = {}

    def ran(self, result: CheckResult) -> None:
        """A check ended with `result`."""
        name = result.check
        self.check_seconds[name] = result.seconds
        self.check_runs[name] = self.check_runs.get(name, 0) + 1
        if result.status is CheckStatus.UNKNOWN:
            self.check_unknowns[name] = self.check_unknowns.get(name, 0) + 1

    def answered(self, ask: str, answer: HookAnswer) -> None:
        """A hook that asked `ask` was given `answer`."""
        word = "denied" if not answer.allow else "uncertain" if answer.counted else "allowed"
        self.hook_answers[ask, word] = self.hook_answers.get((ask, word), 0) + 1


class HookMisses:
    """Counts the lines that hooks without an answer append to a file (docs/interfaces.md, section 2).

    What is counted is moved aside: hooks stop writing to a file that is full, and an agent that starts again must not count
    it twice. A hook that had the file open while it was moved is heard at the next look.
    """

    def __init__(self, path: Path) -> None:
        self.count = 0
        self._path = path
        self._moved = path.with_name(path.name + ".counted")
        self._open: BinaryIO | None = None

    def look(self) -> None:
        """Count what was appended since the last look, and warn of it; a file that is not there has none."""
        lines = self._rest()
        try:
            self._path.replace(self._moved)
            self._open = open(self._moved, "rb")  # noqa: SIM115 (kept until the next look)
        except OSError:
            pass
        else:
            lines += self._open.read(_MOST_AT_ONCE).splitlines()
        if lines:
            self.count += len(lines)
            last = lines[-1][:500].decode("utf-8", "replace")
            _LOG.warning("%d hooks of Slurm got no answer from this agent, the last one: %s", len(lines), last)

    def _rest(self) -> list[bytes]:
        if self._open is None:
            return []
        with self._open as stream:
            self._open = None
            return stream.read(_MOST_AT_ONCE).splitlines()
