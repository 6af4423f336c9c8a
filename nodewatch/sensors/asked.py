"""A polled source that puts each question to a command of its own, and never to two at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from nodewatch.sensors.child import Child, Ended
from nodewatch.sensors.reading import Reading

_MOST = 65536
"""What a child's output is cut at: more than that was not read whole."""


class AskedSensor(ABC):
    """The child, its deadline and its end; what is asked and what an answer means is the subclass's.

    One that misses its deadline is left behind and waited for: a second one would hang on the same device.
    """

    what = ""
    """What is asked, in a sentence: `the EFA devices`."""
    hint = ""
    """Where to look when there is no answer."""

    def __init__(self, *, deadline_s: float) -> None:
        self._deadline_s = deadline_s
        self._child: Child | None = None
        self._late = False
        self._pending: Reading | None = None

    @abstractmethod
    def question(self, now: float) -> Reading | Sequence[str]:
        """The command to run, or the reading where none needs to be asked."""

    @abstractmethod
    def answer(self, ended: Ended, now: float) -> Reading:
        """What the command's output means; it is whole and the status is 0."""

    def start(self, now: float) -> None:
        """Begin a reading."""
        if self._pending is not None or (self._child is not None and not self._late):
            return
        if self._child is not None:
            if self._child.poll() is None:
                self._pending = Reading(error=self._says_late())
                return
            self._child = None
            self._late = False
        question = self.question(now)
        if isinstance(question, Reading):
            self._pending = question
            return
        try:
            self._child = Child(question, now=now)
        except OSError as error:
            self._pending = Reading(error=f"{self.what} cannot be read: {error}: {self.hint}")

    def filenos(self) -> tuple[int, ...]:
        """The child's output while it is waited for."""
        return () if self._child is None or self._late or self._pending is not None else (self._child.fileno(),)

    def due_at(self) -> float | None:
        """When the child is late; at once where there is no child to wait for."""
        if self._pending is not None:
            return 0.0
        return None if self._child is None or self._late else self._child.started_at + self._deadline_s

    def result(self, now: float) -> Reading | None:
        """The sample, or why there is none."""
        pending, self._pending = self._pending, None
        if pending is not None:
            return pending
        if self._child is None or self._late:
            return None
        ended = self._child.poll()
        if ended is None:
            if now - self._child.started_at < self._deadline_s:
                return None
            self._late = True
            return Reading(error=self._says_late())
        self._child = None
        if ended.returncode != 0 or len(ended.stdout) >= _MOST:
            return Reading(error=f"{self.what} cannot be read (status {ended.returncode}): {self.hint}")
        return self.answer(ended, now)

    def close(self) -> None:
        """Send SIGKILL to the child; one that cannot be killed yet is left to the kernel."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    def _says_late(self) -> str:
        return f"{self.what} gave no answer within {self._deadline_s:g} s: {self.hint}"
