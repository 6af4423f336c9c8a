"""A machine in quarantine leaves Slurm: its slurmd would go on registering under the name that its successor bears."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from nodewatch.sensors.child import Child

_LOG = logging.getLogger(__name__)
COMMAND = ("systemctl", "disable", "--now", "slurmd.service")
_AGAIN_S = 60.0
"""The controller asks with each answer while the machine speaks: a command that failed is tried again so often."""


class Retirement:
    """Stops slurmd for good, without waiting for it: once it worked there is nothing more to do."""

    def __init__(self, command: Sequence[str] = COMMAND) -> None:
        self._command = tuple(command)
        self._child: Child | None = None
        self._begun_at = float("-inf")
        self._is_done = False

    @property
    def is_done(self) -> bool:
        """Whether slurmd was stopped and will not start at a boot."""
        self._look()
        return self._is_done

    def ask(self, now: float) -> None:
        """The controller says that this machine is in quarantine."""
        if self.is_done or self._child is not None or now - self._begun_at < _AGAIN_S:
            return
        self._begun_at = now
        _LOG.warning("this machine is in quarantine: slurmd is stopped and disabled")
        try:
            self._child = Child(self._command, now=now)
        except OSError as error:
            _LOG.error("slurmd could not be stopped: %s", error)

    def _look(self) -> None:
        ended = self._child.poll() if self._child is not None else None
        if ended is None:
            return
        self._child = None
        self._is_done = ended.returncode == 0
        if not self._is_done:
            _LOG.error("slurmd could not be stopped (status %d): %s", ended.returncode, ended.stderr.strip()[:300])
