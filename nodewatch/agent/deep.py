"""The deep diagnostics of one validation: long tools, one after the other, that give way to a job at once.

Never two at a time: two of them would measure each other. One that is stopped for a job gives no finding, and those
that had not begun are not begun.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from nodewatch.sensors.reading import PolledSensor, Reading


class DeepTool(PolledSensor, Protocol):
    """A diagnostic that takes seconds to hours and can be ended early."""

    @property
    def deadline_s(self) -> float:
        """How long it may take, at most."""

    def stop(self, why: str, now: float) -> None:
        """End it, gently first: its reading comes soon and holds `why` as its error."""


class DeepRun:
    """The tools of one run, in order. `now` is monotonic seconds throughout."""

    def __init__(self, tools: Sequence[DeepTool], *, now: float) -> None:
        self._waiting = list(tools)
        self._running: DeepTool | None = None
        self._of = len(self._waiting)
        self._began_at = now

    @property
    def is_done(self) -> bool:
        """Every tool has given its reading."""
        return self._running is None and not self._waiting

    def step(self, now: float) -> list[tuple[DeepTool, Reading]]:
        """The readings that came; the next tool is begun when one has ended."""
        came: list[tuple[DeepTool, Reading]] = []
        while not self.is_done:
            if self._running is None:
                self._running = self._waiting.pop(0)
                self._began_at = now
                self._running.start(now)
            reading = self._running.result(now)
            if reading is None:
                break
            came.append((self._running, reading))
            self._running = None
        return came

    def give_way(self, why: str, now: float) -> list[tuple[DeepTool, Reading]]:
        """Stop: the readings, all without a result, of the tools that had not begun. The one that runs ends in `step`."""
        left, self._waiting = self._waiting, []
        if self._running is not None:
            self._running.stop(why, now)
        return [(tool, Reading(error=why)) for tool in left]

    def filenos(self) -> tuple[int, ...]:
        """Descriptors of the tool that runs."""
        return () if self._running is None else self._running.filenos()

    def due_at(self) -> float | None:
        """When `step` is due even if no descriptor became readable."""
        return None if self._running is None else self._running.due_at()

    def progress(self, now: float) -> dict[str, Any]:
        """What is running now, for whoever waits: `tool`, `done`, `of`, and since how many seconds."""
        ended = self._of - len(self._waiting) - (self._running is not None)
        return {
            "tool": "" if self._running is None else self._running.name,
            "done": ended,
            "of": self._of,
            "seconds": round(now - self._began_at, 1),
        }

    def close(self) -> None:
        """End the tool that runs, without waiting for it."""
        if self._running is not None:
            self._running.close()
