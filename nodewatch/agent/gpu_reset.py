"""A reset of the node's GPUs, asked for by the controller on an empty node.

Whatever holds a GPU open makes the driver refuse: the services that do are stopped first, those that ran are started again
whatever came of it. All GPUs are reset together, since those behind NVSwitches cannot be reset alone on every generation
(nvidia-smi's manual, --gpu-reset). The agent itself lets go of NVML before `step` is called for the first time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nodewatch.sensors.child import Child, Ended

_LOG = logging.getLogger(__name__)
_SERVICE_DEADLINE_S = 60.0
_RESET_DEADLINE_S = 180.0
"""Eight GPUs and their switches take well below a minute; a driver that hangs is a matter for the next rung."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResetDone:
    """How a reset ended; `said` is one sentence."""

    key: str
    is_done: bool
    said: str


class GpuReset:
    """One reset: services stopped, GPUs reset, services started. `now` is monotonic seconds."""

    def __init__(self, key: str, *, command: Sequence[str], services: Sequence[str], now: float) -> None:
        """`services` are systemd units that may hold a GPU; those that are not active are left alone."""
        self.key = key
        self._command = tuple(command)
        self._services = tuple(services)
        self._active: tuple[str, ...] = ()
        self._is_done = False
        self._said = ""
        self._child: Child | None = None
        self._deadline_s = _SERVICE_DEADLINE_S
        self._then: Callable[[Ended | None, float], ResetDone | None] = self._stop_services
        if self._services:
            self._run(("systemctl", "is-active", *self._services), _SERVICE_DEADLINE_S, self._stop_services, now)
        else:
            self._reset(now)

    def filenos(self) -> tuple[int, ...]:
        """The output of the command that runs."""
        return () if self._child is None else self._child.filenos()

    def due_at(self) -> float | None:
        """When the command that runs is late; at once where none could be started."""
        return 0.0 if self._child is None else self._child.started_at + self._deadline_s

    def step(self, now: float) -> ResetDone | None:
        """Go on; the value is given once, at the end."""
        ended: Ended | None = None
        if self._child is not None:
            ended = self._child.poll()
            if ended is None and now < self._child.started_at + self._deadline_s:
                return None
            if ended is None:
                self._child.kill()
                self._said = self._said or f"{self._argv[0]} did not end within {self._deadline_s:.0f} s"
            self._child = None
        return self._then(ended, now)

    def close(self) -> None:
        """End the command that runs; services that were stopped stay so, and are systemd's to start at the next boot."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    def _run(
        self,
        argv: tuple[str, ...],
        deadline_s: float,
        then: Callable[[Ended | None, float], ResetDone | None],
        now: float,
    ) -> None:
        self._argv, self._deadline_s, self._then = argv, deadline_s, then
        try:
            self._child = Child(argv, now=now)
        except OSError as error:
            self._child = None
            self._said = self._said or f"{argv[0]} cannot be run ({error.strerror})"

    def _stop_services(self, ended: Ended | None, now: float) -> None:
        words = ended.stdout.split() if ended is not None else []
        if len(words) == len(self._services):
            self._active = tuple(
                unit for unit, word in zip(self._services, words, strict=True) if word in ("active", "activating")
            )
        # What systemd says of itself here is no news of the reset: without an answer nothing is stopped.
        self._said = ""
        if self._active:
            self._run(("systemctl", "stop", *self._active), _SERVICE_DEADLINE_S, self._stopped, now)
        else:
            self._reset(now)

    def _stopped(self, ended: Ended | None, now: float) -> None:
        if ended is None or ended.returncode != 0:
            self._said = self._said or f"{', '.join(self._active)} could not be stopped ({_last(ended)})"
            self._start_services(now)
        else:
            self._reset(now)

    def _reset(self, now: float) -> None:
        self._run(self._command, _RESET_DEADLINE_S, self._was_reset, now)

    def _was_reset(self, ended: Ended | None, now: float) -> ResetDone | None:
        if ended is not None and ended.returncode == 0:
            self._is_done, self._said = True, "the GPUs were reset"
        else:
            self._said = self._said or f"{' '.join(self._command)} failed ({_last(ended)})"
        return self._start_services(now)

    def _start_services(self, now: float) -> ResetDone | None:
        if not self._active:
            return self._end()
        self._run(("systemctl", "start", *self._active), _SERVICE_DEADLINE_S, self._started, now)
        return None

    def _started(self, ended: Ended | None, _now: float) -> ResetDone:
        if ended is None or ended.returncode != 0:
            # The fabric manager that does not come back leaves GPUs that cannot work: that is no success.
            self._is_done = False
            self._said = f"{', '.join(self._active)} could not be started again ({_last(ended)})"
        return self._end()

    def _end(self) -> ResetDone:
        _LOG.info("GPU reset %s: %s", self.key, self._said)
        return ResetDone(key=self.key, is_done=self._is_done, said=self._said)


def _last(ended: Ended | None) -> str:
    if ended is None:
        return "it did not end in time or could not be run"
    lines = (ended.stderr.strip() or ended.stdout.strip()).splitlines()
    return lines[-1].strip()[:300] if lines else f"status {ended.returncode}"
