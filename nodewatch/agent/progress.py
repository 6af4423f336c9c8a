"""What the agent tells the controller of its jobs' progress: the ranks' heartbeats, and since when no GPU has worked.

The files are users': they are read on a thread of its own, so that one that makes a read hang holds up nothing else.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from nodewatch.model.gpu_samples import GpuSample
from nodewatch.model.heartbeats import Beat, JobBeats, to_message
from nodewatch.sensors.heartbeats import HeartbeatFiles

_LOG = logging.getLogger(__name__)
LOOK_S = 2.0
TELL_S = 5.0
"""A message carries the heartbeats so often at most: at 2,000 nodes of 8 ranks the controller takes 0.5 s of a processor
for all of them (measured)."""
REPEAT_S = 30.0
"""And so often at least, changed or not: a controller that was started anew knows of a hung job by then."""
STALE_S = 30.0
"""Without a look for so long nothing is told: that the files cannot be read is no standstill of the job."""


class Progress:
    """The heartbeats of this node. `part` and `sent` are called from the sender's thread."""

    def __init__(
        self, files: HeartbeatFiles, *, clock: Callable[[], float] = time.monotonic, period_s: float = LOOK_S
    ) -> None:
        """`clock` gives monotonic seconds."""
        self._files = files
        self._clock = clock
        self._period_s = period_s
        self._stop = threading.Event()
        self._jobs: Mapping[int, JobBeats] = {}
        self._looked_at = float("-inf")
        self._told: dict[int, dict[int, tuple[object, ...]]] | None = None
        self._told_at = float("-inf")
        self._offered: dict[int, dict[int, tuple[object, ...]]] | None = None
        self.gpus = GpuIdleness(clock)

    def start(self) -> None:
        """Look from now on, every `period_s`."""
        threading.Thread(target=self._run, name="heartbeats", daemon=True).start()

    def stop(self) -> None:
        """Look no more. A look that hangs is not waited for."""
        self._stop.set()

    def look(self) -> None:
        """One look."""
        now = self._clock()
        jobs = self._files.look(now)
        self._jobs, self._looked_at = jobs, now

    def ranks(self, job_id: int) -> tuple[int, Mapping[int, Beat]] | None:
        """(uid of the job's user, its ranks on this node) as seen last; None for a job without heartbeats."""
        owner, job = self._files.owner(job_id), self._jobs.get(job_id)
        return None if owner is None or job is None else (owner, job.ranks)

    def last_step(self, job_id: int) -> int | None:
        """The highest step that a rank of the job on this node has told; None for a job without heartbeats."""
        known = self.ranks(job_id)
        return max((beat.step for beat in known[1].values()), default=None) if known is not None else None

    def part(self) -> dict[str, Any]:
        """What the next message carries of this; nothing while there is nothing new. `sent` says that it was taken."""
        now = self._clock()
        idle_s = self.gpus.idle_s()
        told: dict[str, Any] = {} if idle_s is None else {"gpus_idle_s": round(idle_s)}
        if now - self._looked_at > STALE_S:
            return told
        jobs = self._jobs
        marks = {job_id: {rank: _mark(beat) for rank, beat in job.ranks.items()} for job_id, job in jobs.items()}
        if not jobs and self._told == {}:
            return told
        if now - self._told_at >= (REPEAT_S if marks == self._told else TELL_S):
            self._offered = marks
            told["jobs"] = to_message(jobs)
        return told

    def sent(self, message: Mapping[str, Any]) -> None:
        """The controller has taken `message`."""
        if "jobs" in message:
            self._told, self._told_at = self._offered, self._clock()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.look()
            except Exception:
                # A bug here must not silence the thread for good: without heartbeats no hang is found.
                _LOG.exception("the heartbeats could not be looked at: report it")
            self._stop.wait(self._period_s)


def _mark(beat: Beat) -> tuple[object, ...]:
    return (beat.step, beat.phase, beat.pid)


class GpuIdleness:
    """Since when every GPU of the machine has been idle, at each reading of NVML."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since: float | None = None

    def take(self, sample: GpuSample) -> None:
        """A new reading."""
        used = [gpu.utilization_percent for gpu in sample.gpus]
        is_idle = bool(used) and all(each == 0 for each in used)
        if not is_idle:
            # A GPU that does not tell counts as one that works: nothing is said on half a picture.
            self._since = None
        elif self._since is None:
            self._since = self._clock()

    def idle_s(self) -> float | None:
        """Seconds since then; None while one works, or none is known."""
        since = self._since
        return None if since is None else max(0.0, self._clock() - since)
