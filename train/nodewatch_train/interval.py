"""How often to save: the interval at which saving costs as much as it spares (Young 1974, Daly 2006).

With a save that holds the run up for d seconds and a failure every M seconds on average, the time lost is least at about
sqrt(2 d M) seconds between saves; Daly's next terms matter when d is no longer small against M. M is that of the whole
job, and so falls with its size: the controller knows it and gives it as NODEWATCH_MTBF_S. Standard library only.
"""

import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

MTBF = "NODEWATCH_MTBF_S"
"""Environment variable: seconds between failures that interrupt this job, on average."""
DEFAULT_MTBF_S = 8 * 3600.0
"""Without it: Meta's 16384 GPUs were interrupted every 3 hours for 54 days (Llama 3, 2024); smaller jobs are more rarely."""
_LEAST_S = 10.0
_MOST_S = 3600.0
"""A researcher expects a checkpoint an hour, however seldom the cluster fails."""


def mean_time_between_failures(environment: Mapping[str, str] = os.environ) -> float:
    """Seconds, from the environment or the default. An odd value is as good as none: no run may fail for it."""
    try:
        given = float(environment.get(MTBF, ""))
    except ValueError:
        return DEFAULT_MTBF_S
    return given if math.isfinite(given) and given > 0 else DEFAULT_MTBF_S


def best_interval(*, held_s: float, mtbf_s: float) -> float:
    """Daly's interval between the end of one save and the beginning of the next, in seconds.

    held_s: how long one save holds the run up. mtbf_s: mean time between failures.
    """
    if held_s >= 2 * mtbf_s:
        return mtbf_s
    x = held_s / (2 * mtbf_s)
    return max(0.0, math.sqrt(2 * held_s * mtbf_s) * (1 + math.sqrt(x) / 3 + x / 9) - held_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """An interval in seconds, and the sentence that says where it comes from."""

    seconds: float
    because: str


def propose(*, held_s: float, seconds: float, mtbf_s: float) -> Proposal:
    """The interval for saves that hold the run up for `held_s` and take `seconds` until they are committed.

    A background save that is not committed protects nothing, and the next can only begin after it: so the interval is never
    below twice its duration.
    """
    best = best_interval(held_s=held_s, mtbf_s=mtbf_s)
    taken = min(_MOST_S, max(_LEAST_S, 2 * seconds, best))
    lost = (held_s / taken + (taken / 2 + seconds) / mtbf_s) * 100
    return Proposal(
        seconds=taken,
        because=(
            f"a checkpoint every {taken:.0f} s: one holds the run up for {held_s:.2f} s and takes {seconds:.1f} s, and a "
            f"failure is expected every {mtbf_s / 3600:.1f} h; about {lost:.2f} % of the time goes to both"
        ),
    )


class Pace:
    """When the next save is due, on one rank: it asks the others by `StopRequest.ask_to_save`.

    interval_s: fixed, or None to take the proposal, which is made anew after each save.
    """

    def __init__(
        self,
        *,
        interval_s: float | None = None,
        mtbf_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fixed = interval_s
        self._mtbf = mean_time_between_failures() if mtbf_s is None else mtbf_s
        self._clock = clock
        self._began = clock()
        self.proposal: Proposal | None = None
        """Made once a save was measured."""

    def is_due(self) -> bool:
        """Whether it is time. The first save comes early, after a minute, to be measured and to have one at all."""
        wait = self._fixed
        if wait is None:
            wait = 60.0 if self.proposal is None else self.proposal.seconds
        return self._clock() - self._began >= wait

    def began(self) -> None:
        """A save begins now."""
        self._began = self._clock()

    def measured(self, *, held_s: float, seconds: float) -> Proposal:
        """A save was committed: how it went, and what follows from it."""
        self.proposal = propose(held_s=held_s, seconds=seconds, mtbf_s=self._mtbf)
        return self.proposal
