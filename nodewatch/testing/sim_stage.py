"""What the parts of a simulation share: virtual time with what is to happen in it, chance, and the cluster's fakes."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nodewatch.policy.rules import Rules
from nodewatch.testing.ec2 import FakeEc2
from nodewatch.testing.sim_cluster import SimSlurm
from nodewatch.testing.sim_faults import FaultMix
from nodewatch.testing.sim_report import Tally

Happening = Callable[[], bool]
"""Something happens; it tells whether the planner may decide otherwise for it."""


class Agenda:
    """What is to happen, by time. Whole seconds: the real controller looks once a second."""

    def __init__(self, now: float) -> None:
        self.now = now
        self._queue: list[tuple[float, int, Happening]] = []
        self._sequence = 0

    def at(self, at: float, happen: Happening) -> None:
        """Let something happen at `at`."""
        self._sequence += 1
        heapq.heappush(self._queue, (float(int(at + 0.999)), self._sequence, happen))

    def later(self, seconds: float, happen: Happening) -> None:
        """Let something happen so long from now."""
        self.at(self.now + seconds, happen)

    def next_at(self) -> float:
        """When the next thing happens; infinity when nothing does."""
        return self._queue[0][0] if self._queue else float("inf")

    def come_to(self, at: float) -> bool:
        """Let all that is due at `at` happen; whether any of it is news. It is one tick of the real controller."""
        self.now = at
        is_news = False
        while self._queue and self._queue[0][0] <= at:
            is_news |= heapq.heappop(self._queue)[2]()
        return is_news


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """See the module."""

    agenda: Agenda
    chance: random.Random
    mix: FaultMix
    rules: Rules
    names: tuple[str, ...]
    """Of all nodes."""
    slurm: SimSlurm
    ec2: FakeEc2
    tally: Tally
    note: Callable[[str, dict[str, Any]], None]
    """Writes one record of the journal."""

    def around(self, seconds: float) -> float:
        """`seconds`, by half more or less."""
        return self.chance.uniform(0.5 * seconds, 1.5 * seconds)
