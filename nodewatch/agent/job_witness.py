"""What a marked job leaves behind, read at its epilog on its first node and sent as the event `job_witness`.

Everything that may hang is done by child processes with deadlines; the epilog does not wait for them. What cannot be read is
said to be unknown.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nodewatch.model import auto_resume
from nodewatch.model.hostlist import expand
from nodewatch.sensors.child import Child, Ended

_LOG = logging.getLogger(__name__)
_START = "import sys; sys.path[:] = sys.argv[1:-1]; from nodewatch.sensors.job_output import main; sys.exit(main(sys.argv[-1]))"
COMMAND = (sys.executable, "-I", "-S", "-c", _START, *(entry for entry in sys.path if entry))
"""The same modules as ours, found the same way: the package's lie where no Python looks by itself."""
DEADLINE_S = 10.0
"""Of reading; the controller waits 15 s after a job's end before it judges without (Rules.attribution_wait_s)."""
_BECOMES = 1 << 5 | 1 << 6 | 1 << 7
"""CAP_KILL, CAP_SETGID, CAP_SETUID, as linux/capability.h numbers them."""
_MOST_CHILDREN = 32
_MOST_KNOWN = 256
_MOST_OUTPUT = 16384
_CUT = 240

Marks = Callable[[Mapping[str, str]], str | None]
"""The text of --auto-resume that counts for a job, None for one that is not marked."""
Steps = Callable[[int], int | None]
"""The last step that the heartbeats of a job on this node have told."""


@dataclass(slots=True)
class _Began:
    """What was learnt at a run's prolog."""

    job: Mapping[str, str]
    at: float
    """Seconds since the epoch."""
    output_from: int | None = None


@dataclass(slots=True)
class _Reading:
    job_id: str
    restart: int
    child: Child
    is_size: bool
    last_step: int | None = None


def as_user(uid: int, status: Path = Path("/proc/self/status")) -> tuple[str, ...]:
    """What is put before a command that is to run as `uid`; nothing where this process may become him, or need not.

    The agent's unit has given those capabilities up, so systemd starts the reader: with none, and nothing to write to.
    """
    if os.geteuid() != 0 or uid == 0:
        return ()
    held = next((line.split()[1] for line in status.read_text().splitlines() if line.startswith("CapEff:")), "0")
    if int(held, 16) & _BECOMES == _BECOMES:
        return ()
    return (
        "systemd-run", "--pipe", "--wait", "--quiet", "--collect", f"--uid={uid}",
        # Longer than the reader's deadline: the agent cannot end what is not its own, so systemd does.
        f"--property=RuntimeMaxSec={DEADLINE_S + 5:g}", "--property=MemoryMax=256M", "--property=TasksMax=8",
        "--property=ProtectSystem=strict", "--property=NoNewPrivileges=yes", "--",
    )  # fmt: skip


class JobWitness:
    """Served by the main loop. `now` is monotonic seconds."""

    def __init__(
        self,
        node: str,
        *,
        marks: Marks,
        steps: Steps,
        tell: Callable[[Mapping[str, Any]], object],
        command: Sequence[str] = COMMAND,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`tell` sends one event's content; `command` gets the question as its last word; `clock` is the wall clock."""
        self._node = node
        self._marks = marks
        self._steps = steps
        self._tell = tell
        self._command = tuple(command)
        self._clock = clock
        self._began: dict[str, _Began] = {}
        self._running: list[_Reading] = []

    def started(self, job: Mapping[str, str], now: float) -> None:
        """A job may start here: its output file may hold what earlier runs of it have left."""
        job_id = job.get("id", "")
        self._began.pop(job_id, None)
        if not self._is_ours(job):
            return
        self._began[job_id] = _Began(job=dict(job), at=self._clock())
        while len(self._began) > _MOST_KNOWN:
            del self._began[next(iter(self._began))]
        if job.get("output"):
            # Also at the first run: another job may have written into the same file.
            question = {"uid": _number(job.get("uid")), "output": job["output"], "size": True}
            self._begin(job, question, now, is_size=True)

    def ended(self, job: Mapping[str, str], now: float) -> None:
        """A job has ended here."""
        known = self._began.pop(job.get("id", ""), None)
        # Some releases tell an epilog less than a prolog.
        whole = {**known.job, **job} if known is not None else dict(job)
        if known is not None:
            # Slurm raises the count of a requeued job before the last run's end is told (seen on 24.11).
            whole["restart"] = known.job.get("restart", "0")
        if not self._is_ours(whole):
            return
        directory = ""
        try:
            directory = auto_resume.parse(self._marks(whole) or "").directory
        except ValueError:
            _LOG.debug("the mark of job %s is not understood", whole.get("id"))
        question = {
            "uid": _number(whole.get("uid")),
            "output": whole.get("output", ""),
            "output_from": known.output_from if known is not None else None,
            "directory": directory,
            "restart": _number(whole.get("restart")),
            "since": known.at if known is not None else None,
        }
        self._begin(whole, question, now, is_size=False)

    def step(self, now: float) -> None:
        """Take what has been read; give up what is late."""
        for reading in list(self._running):
            ended = reading.child.poll()
            if ended is None and now - reading.child.started_at < DEADLINE_S:
                continue
            self._running.remove(reading)
            if ended is None:
                reading.child.kill()
            self._take(reading, ended)

    def filenos(self) -> tuple[int, ...]:
        """The outputs of the children."""
        return tuple(fd for reading in self._running for fd in reading.child.filenos())

    def due_at(self) -> float | None:
        """When the next child is late."""
        return min((reading.child.started_at + DEADLINE_S for reading in self._running), default=None)

    def close(self) -> None:
        """End what still runs."""
        for reading in self._running:
            reading.child.kill()
        self._running.clear()

    def _is_ours(self, job: Mapping[str, str]) -> bool:
        """Whether it is marked, and this is the node on which its batch script runs."""
        if not _number(job.get("id")) or self._marks(job) in (None, "off"):
            return False
        try:
            nodes = expand(job.get("nodes", ""))
        except ValueError:
            return False
        return nodes[:1] == [self._node]

    def _begin(self, job: Mapping[str, str], question: Mapping[str, Any], now: float, *, is_size: bool) -> None:
        job_id, restart = job["id"], _number(job.get("restart"))
        if len(self._running) >= _MOST_CHILDREN:
            _LOG.warning("what job %s left behind is not read: %d others are being read", job_id, len(self._running))
            return
        try:
            command = [*as_user(question["uid"]), *self._command, json.dumps(question)]
            child = Child(command, now=now)
        except OSError as error:
            _LOG.warning("what job %s left behind cannot be read: %s", job_id, error)
            return
        last_step = None if is_size else self._steps(int(job_id))
        reading = _Reading(job_id=job_id, restart=restart, child=child, is_size=is_size, last_step=last_step)
        self._running.append(reading)

    def _take(self, reading: _Reading, ended: Ended | None) -> None:
        told: dict[str, Any] = {}
        unread = f"nothing came within {DEADLINE_S:g} s: its file system may hang"
        if ended is not None:
            unread = f"the reader ended with status {ended.returncode}"
            try:
                answer = json.loads(ended.stdout) if ended.returncode == 0 else None
            except (ValueError, RecursionError):
                answer = None
            told = answer if isinstance(answer, dict) else {}
        if reading.is_size:
            known, size = self._began.get(reading.job_id), told.get("size")
            if known is not None and _number(known.job.get("restart")) == reading.restart and isinstance(size, int):
                known.output_from = size
            return
        if not told:
            told = {"lines": None, "unread": unread}
        if told.get("last_step") is None and reading.last_step is not None:
            told["last_step"] = reading.last_step
        content = {**told, "job_id": int(reading.job_id), "restart_count": reading.restart}
        if len(json.dumps(content)) > _MOST_OUTPUT:
            # The reader bounds each of them; together they may still be more than one event should carry.
            lines, failures = told.get("lines"), told.get("failures")
            content["lines"] = [str(line)[:_CUT] for line in lines[:8]] if isinstance(lines, list) else None
            content["failures"] = failures[:4] if isinstance(failures, list) else None
        self._tell(content)


def _number(text: str | None) -> int:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) <= 10 else 0
