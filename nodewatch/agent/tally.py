"""Counts of what the agent did since its start, for the metrics."""

from __future__ import annotations

import os
from pathlib import Path

from nodewatch.model.health import CheckResult, CheckStatus
from nodewatch.policy.verdicts import HookAnswer

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
    """Counts the lines that hooks without an answer append to a file (docs/interfaces.md, section 2)."""

    def __init__(self, path: Path) -> None:
        self.count = 0
        self._path = path
        self._offset = 0

    def look(self) -> None:
        """Count what was appended since the last look; a file that is not there has none."""
        try:
            with open(self._path, "rb") as stream:
                if os.fstat(stream.fileno()).st_size < self._offset:
                    self._offset = 0
                stream.seek(self._offset)
                text = stream.read(_MOST_AT_ONCE)
        except OSError:
            return
        self.count += text.count(b"\n")
        self._offset += len(text)
