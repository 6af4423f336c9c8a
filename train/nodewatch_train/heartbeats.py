"""A rank's last word, for the agent of its node: one file of 256 bytes, rewritten in place by one write a step.

Where NODEWATCH_HEARTBEATS names a directory, each rank keeps a file there, named by its rank:

    {"v":1,"rank":3,"step":120,"t":1764000000.1,"step_s":0.41,"phase":"step","pid":4711}

A run whose ranks make no step any more is found by it. `phase` says what silence means: `starting` and `saving` may take long,
`step` may not, and `done` ends it. Without the variable nothing is opened and nothing is written; with it nothing here ever
raises, since a lost heartbeat is cheaper than a lost run. Standard library only.
"""

import json
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

HEARTBEATS = "NODEWATCH_HEARTBEATS"
"""Environment variable: the directory on this node in which this job's ranks keep their files."""
BYTES = 256


class Heartbeat:
    """Of one rank. What is written first says `starting`."""

    def __init__(self, *, rank: int, environment: Mapping[str, str] = os.environ) -> None:
        self._rank = rank
        self._descriptor = -1
        self._complained = False
        self._step = 0
        self._step_s: float | None = None
        self._ended: float | None = None
        self._phase = "starting"
        directory = environment.get(HEARTBEATS)
        if not directory:
            return
        path = Path(directory) / str(rank)
        try:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        except OSError as error:
            self._complain(path, error)
        self._beat(None)

    def step(self, step: int, *, compute_s: float | None = None) -> None:
        """Step number `step` is completed. compute_s: this rank's own part of it, before it waited for the others."""
        now = time.monotonic()
        # What lay between was no step: its time is not a step's.
        self._step_s = None if self._ended is None or self._phase != "step" else now - self._ended
        self._ended, self._step, self._phase = now, step, "step"
        self._beat(compute_s)

    def phase(self, name: str, step: int | None = None) -> None:
        """Something begins that may take long: `starting`, `saving`, or what the agent takes for saving (evaluating)."""
        self._phase = name if name in ("starting", "done") else "saving"
        self._step = self._step if step is None else step
        self._beat(None)

    def stepping(self) -> None:
        """The next step begins: from here on silence is a hung step again."""
        if self._phase not in ("step", "starting"):
            self._phase, self._ended = "step", time.monotonic()
            self._beat(None)

    @contextmanager
    def saving(self) -> Iterator[None]:
        """While training waits for a save."""
        self.phase("saving")
        try:
            yield
        finally:
            self.stepping()

    def _beat(self, compute_s: float | None) -> None:
        if self._descriptor < 0:
            return
        said: dict[str, object] = {"v": 1, "rank": self._rank, "step": self._step, "t": round(time.time(), 3)}
        for name, value in (("step_s", self._step_s), ("compute_s", compute_s)):
            if value is not None and math.isfinite(value):
                said[name] = round(value, 4)
        said |= {"phase": self._phase, "pid": os.getpid()}
        line = json.dumps(said, separators=(",", ":")).encode()
        try:
            os.pwrite(self._descriptor, line.ljust(BYTES - 1) + b"\n", 0)
        except OSError as error:
            self._complain(None, error)

    def _complain(self, path: Path | None, error: OSError) -> None:
        if not self._complained:
            where = f" {path}" if path is not None else ""
            print(f"heartbeat{where} cannot be written ({error.strerror}): going on without", file=sys.stderr)
        self._complained = True
