"""The record of progress that the controller and the operator read: `progress.jsonl` in the checkpoint directory.

One JSON object a line, as docs/interfaces.md section 5 has it. A hang can be told from a slow step by the time of the
last line and the `step_s` of those before; what else may take long (saving, evaluating) is said by a line of its own when
it begins. Rank 0 writes it; every rank that fails adds one line to `failures.jsonl` beside it, so that the same step failing on
the same rank can be told from a broken node. Every rank also keeps its heartbeat, where the cluster asks for it (`heartbeats`).
Standard library only.
"""

import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

from nodewatch_train.heartbeats import Heartbeat

PROGRESS = "progress.jsonl"
FAILURES = "failures.jsonl"


class ProgressLog:
    """Appends the lines of one run. On the other ranks it keeps their heartbeats alone: the training loop needs no `if`.

    A line that cannot be written (disk full) is said once on standard error and the run goes on: a lost heartbeat is
    cheaper than a lost run.
    """

    def __init__(self, directory: Path, *, rank: int, restart: int) -> None:
        self._path = directory / PROGRESS
        self._writes = rank == 0
        self._restart = restart
        self._complained = False
        self._step_ended: float | None = None
        self.heartbeat = Heartbeat(rank=rank)

    def phase(self, name: str, step: int) -> None:
        """Something begins that is not a step, after `step` completed ones: silence from here on is no hung step."""
        self.heartbeat.phase(name, step)
        self._append("phase", step=step, phase=name)
        self._step_ended = None

    def start(self, *, world_size: int, resumed_from: str | None, step: int) -> None:
        """The run begins after `step` completed steps, from the checkpoint `resumed_from` (None: from scratch)."""
        self.heartbeat.phase("starting", step)
        self._append("start", world_size=world_size, resumed_from=resumed_from, step=step)
        self._step_ended = time.monotonic()

    def step(self, step: int, loss: float | None, **figures: float) -> None:
        """Step number `step` (the first is 1) was completed with this loss. figures: what else is worth a line.

        The line also has `step_s`, the seconds since the step before, unless something else was between them.
        """
        self.heartbeat.step(step)
        now = time.monotonic()
        took = {} if self._step_ended is None else {"step_s": round(now - self._step_ended, 4)}
        self._step_ended = now
        finite = {name: value for name, value in figures.items() if math.isfinite(value)}
        self._append("step", step=step, **_loss(loss), **took, **finite)

    def saved(self, step: int, checkpoint: str, seconds: float, held_seconds: float | None = None) -> None:
        """The checkpoint of `step` steps was committed under that name; it took `seconds`, and training stood `held`."""
        held = {} if held_seconds is None else {"held_seconds": round(held_seconds, 4)}
        self._append("saved", step=step, checkpoint=checkpoint, seconds=round(seconds, 4), **held)

    def kept(self, step: int, seconds: float, held_seconds: float) -> None:
        """The save of `step` steps stands in the nodes' own storage, and not, or not yet, in the checkpoint directory."""
        self._append("kept", step=step, seconds=round(seconds, 4), held_seconds=round(held_seconds, 4))

    def done(self, step: int, loss: float | None) -> None:
        """All steps are completed. `loss` is None when a run resumed with no step left to do."""
        self.heartbeat.phase("done", step)
        self._append("done", step=step, **_loss(loss))

    def _append(self, event: str, **fields: Any) -> None:
        if not self._writes:
            return
        try:
            append_line(self._path, {"t": round(time.time(), 3), "event": event, "restart": self._restart, **fields})
        except OSError as error:
            if not self._complained:
                print(f"cannot record progress in {self._path} ({error.strerror}): going on without", file=sys.stderr)
            self._complained = True


def append_line(path: Path, fields: dict[str, Any]) -> None:
    """Append one JSON line in a single write, so that lines of several processes do not mix. Raises OSError."""
    line = json.dumps(fields, allow_nan=False, separators=(",", ":")).encode() + b"\n"
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        size = os.fstat(descriptor).st_size
        # A run that was killed in mid-write left half a line; ours must not be glued to it.
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            line = b"\n" + line
        os.write(descriptor, line)
    finally:
        os.close(descriptor)


def _loss(loss: float | None) -> dict[str, Any]:
    if loss is None:
        return {"loss": None, "loss_hex": None}
    # JSON knows no NaN; the exact value always stands in loss_hex ("nan", "inf").
    return {"loss": loss if math.isfinite(loss) else None, "loss_hex": loss.hex()}
