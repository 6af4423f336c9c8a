"""The controller's time: the wall clock, except that it never goes back while the process lives.

A step back by NTP or by hand would make every wait that is under way longer by the step, and put outcomes before their causes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

_log = logging.getLogger(__name__)
_TOLERATED_S = 1.0
"""NTP slews by less; a jump by less is waited out."""


class SteadyClock:
    """Seconds since the epoch. After a step back it goes on from where it was, until the wall clock has caught up."""

    def __init__(self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._last = wall()
        self._last_monotonic = monotonic()
        self._is_ahead = False

    def __call__(self) -> float:
        with self._lock:
            wall, monotonic = self._wall(), self._monotonic()
            expected = self._last + (monotonic - self._last_monotonic)
            is_ahead = wall < expected - _TOLERATED_S
            if is_ahead and not self._is_ahead:
                _log.warning("the clock was set back by %.0f s: time goes on from where it was", expected - wall)
            self._is_ahead = is_ahead
            self._last = max(expected, self._last) if is_ahead else max(wall, self._last)
            self._last_monotonic = monotonic
            return self._last
