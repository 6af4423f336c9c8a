"""Leaving a distributed run: together and with a checkpoint when asked to, at once when a peer is gone.

Slurm asks with SIGTERM (time limit, preemption, requeue, scancel), and `--signal=USR2@SECONDS` asks earlier. SIGUSR1 is
left alone: NCCL uses it. Two more things ask: the end of the job's time (SLURM_JOB_END_TIME), early enough for a checkpoint,
and the file that NODEWATCH_SAVE_NOW names, which an agent makes when the machine is about to be taken back. A rank that
left on its own would strand the others inside a collective, so the ranks agree at the end of each step.

A rank whose peer died must be gone within a second or two, since the job's new life waits for it. Two things would
keep it: `destroy_process_group` and interpreter shutdown wait for the peer, so the failing path leaves through
`os._exit`; and Python runs signal handlers only between bytecodes, so SIGTERM does nothing to a rank that waits inside
a collective: a thread that reads the signal's wake-up pipe ends it instead.
"""

import enum
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

import torch
import torch.distributed as dist

from nodewatch_train.manifest import CheckpointError, RefusedError
from nodewatch_train.progress import FAILURES, append_line

EXIT_DONE = 0
"""All steps are completed."""
EXIT_FAILED = 1
"""An exception of the program, or a peer was lost. One code for both, the lowest: srun reports the highest of all
ranks, and the ranks that only followed must not hide the code of the one that failed first."""
EXIT_REFUSED = 93
"""The run cannot work as it was configured (checkpoints of another model): starting again would not help."""
EXIT_STOPPED = 94
"""Stopped because it was asked to, after a checkpoint; starting again continues the run."""

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR2)

END_TIME = "SLURM_JOB_END_TIME"
"""Environment variable of Slurm: when the job's time ends, in seconds since the epoch."""
SAVE_NOW = "NODEWATCH_SAVE_NOW"
"""Environment variable: a file. Made or changed, it asks for a checkpoint; with the word `stop` in it, for an end after."""
SAVE_MARGIN = "NODEWATCH_SAVE_MARGIN_S"
"""Environment variable: seconds before the end of the job's time at which it is asked to stop, whatever was measured."""
_MARGIN_S = 60.0
"""Slurm sends SIGTERM at the limit and SIGKILL 30 s later (KillWait); it may look at limits only every 30 s or so."""
_POLL_S = 1.0


class Ask(enum.IntEnum):
    """What all ranks agreed to do at the end of a step."""

    NOTHING = 0
    SAVE = 1
    STOP = 2


class StopRequest:
    """Whether this run was asked to stop, or to save. Made once, in the main thread.

    patience_seconds: how long a rank may still take to reach the end of its step once asked, on top of twice its
    longest recent step. Past that it is stuck with a dead peer, and the process ends with EXIT_FAILED.
    environment: where END_TIME, SAVE_NOW and SAVE_MARGIN are read. clock: seconds since the epoch.
    """

    def __init__(
        self,
        *,
        patience_seconds: float = 1.0,
        environment: Mapping[str, str] = os.environ,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._patience = patience_seconds
        self._asked = False
        self._asked_to_save = False
        self._clock = clock
        self._end = _seconds(environment.get(END_TIME))
        self._fixed_margin = _seconds(environment.get(SAVE_MARGIN))
        self._save_seconds = 0.0
        self._file = Path(environment[SAVE_NOW]) if environment.get(SAVE_NOW) else None
        self._file_seen = _version(self._file)
        self._looked_at = 0.0
        self._agreed = threading.Event()
        self._saving = False
        self._recent: deque[float] = deque(maxlen=20)
        self._step_began: float | None = None
        wake_up, written_by_c = socket.socketpair()
        written_by_c.setblocking(False)
        self._pipe = (wake_up, written_by_c)
        signal.set_wakeup_fd(written_by_c.fileno(), warn_on_full_buffer=False)
        for number in STOP_SIGNALS:
            signal.signal(number, self._note)
        threading.Thread(target=self._end_if_stuck, name="stop-request", daemon=True).start()

    @property
    def asked(self) -> bool:
        """Whether this rank was asked; the others may not know yet (`agreed`)."""
        return self._asked

    def ask_to_save(self) -> None:
        """Ask all ranks for a checkpoint at the end of this step; one rank is enough."""
        self._asked_to_save = True

    def agreed(self, device: torch.device) -> bool:
        """Whether any rank was asked to stop: the same answer on all of them. Ends a step; a collective.

        Raises what the collective raises when a peer is gone.
        """
        return self.agree(device) is Ask.STOP

    def agree(self, device: torch.device) -> Ask:
        """The most that any rank was asked for. Ends a step; a collective, as `agreed` is."""
        self._look()
        mine = Ask.STOP if self._asked else Ask.SAVE if self._asked_to_save else Ask.NOTHING
        flag = torch.tensor([float(mine)], device=device)
        if dist.is_initialized():
            dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        now = time.monotonic()
        if self._step_began is not None:
            self._recent.append(now - self._step_began)
        self._step_began = now
        ask = Ask(int(flag.item()))
        if ask:
            self._asked_to_save = False
        if ask is Ask.STOP:
            self._agreed.set()
        return ask

    def _look(self) -> None:
        """Whether the time is nearly over, or the file was made."""
        now = self._clock()
        if self._end is not None and now >= self._end - self.margin:
            self._asked = True
        if self._file is None or abs(now - self._looked_at) < _POLL_S:
            return
        self._looked_at = now
        version = _version(self._file)
        if version == self._file_seen:
            return
        self._file_seen = version
        if version is None:
            return
        with suppress(OSError, ValueError):
            if self._file.read_text(encoding="utf-8").strip().lower() == "stop":
                self._asked = True
        self._asked_to_save = True

    @property
    def margin(self) -> float:
        """Seconds before the end of the job's time at which it stops: for two steps and twice the longest save so far."""
        if self._fixed_margin is not None:
            return self._fixed_margin
        return _MARGIN_S + 2 * max(self._recent, default=0.0) + 2 * self._save_seconds

    def saved(self, seconds: float) -> None:
        """A save took so long: the end of the job's time is anticipated by as much."""
        self._save_seconds = max(self._save_seconds, seconds)

    @contextmanager
    def saving(self) -> Iterator[None]:
        """While a checkpoint is saved: it may take its time, and does not count as part of a step."""
        self._saving = True
        began = time.monotonic()
        try:
            yield
            self.saved(time.monotonic() - began)
        finally:
            self._step_began = time.monotonic()
            self._saving = False

    def sleep(self, seconds: float) -> None:
        """Wait, but not past a request to stop."""
        end = time.monotonic() + seconds
        # In slices: a signal's handler does not cut time.sleep short.
        while not self._asked and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.02))

    def _note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 (the signature is Python's)
        self._asked = True

    def _end_if_stuck(self) -> None:
        while signal.Signals(self._pipe[0].recv(1)[0]) not in STOP_SIGNALS:
            pass
        asked_at = time.monotonic()
        while not self._agreed.wait(0.05):
            patience = self._patience + 2 * max(self._recent, default=0.0)
            waited = time.monotonic() - max(asked_at, self._step_began or 0.0)
            if waited > patience and not self._saving:
                leave(EXIT_FAILED, f"asked to stop, and the step did not end within {patience:.1f} s: leaving at once")


def _seconds(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None  # an odd variable must not keep a run from training
    return value if value > 0 else None


def _version(path: Path | None) -> tuple[int, int] | None:
    """Changes when the file is made or written again."""
    try:
        status = path.stat() if path is not None else None
    except OSError:
        return None
    return None if status is None else (status.st_ino, status.st_mtime_ns)


def leave(code: int, message: str = "") -> NoReturn:
    """End the process now: no exit handlers, no waiting for peers or threads. Output is flushed first."""
    if message:
        print(message, file=sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # srun's pipe may be gone already; that must not keep us
            stream.flush()
    os._exit(code)


@contextmanager
def leaving_promptly(*, rank: int, restart: int, failures: Path | None = None) -> Iterator[None]:
    """Run a rank, and let no failure of it linger: an exception ends the process at once.

    A RefusedError ends it with EXIT_REFUSED; everything else with EXIT_FAILED, since a missing or read-only checkpoint
    directory may as well be the fault of the node. A CheckpointError prints its one sentence, other errors a traceback.
    failures: the directory in which a line is added to failures.jsonl, so that the rank that failed first can be told
    from those that lost it:
    `{"t","event":"failed","restart","rank","host","kind":"program|peer_lost|checkpoint|refused","error"}`.
    """
    try:
        yield
    except RefusedError as error:
        _record(failures, rank, restart, "refused", error)
        leave(EXIT_REFUSED, f"rank {rank}: {error}")
    except CheckpointError as error:
        _record(failures, rank, restart, "checkpoint", error)
        leave(EXIT_FAILED, f"rank {rank}: {error}")
    except KeyboardInterrupt:
        leave(128 + signal.SIGINT, f"rank {rank}: interrupted")
    except Exception as error:
        if is_peer_loss(error):
            _record(failures, rank, restart, "peer_lost", error)
            leave(EXIT_FAILED, f"rank {rank}: a peer is gone: {_first_line(error)}")
        traceback.print_exc()
        _record(failures, rank, restart, "program", error)
        leave(EXIT_FAILED, f"rank {rank}: the program failed: {type(error).__name__}: {_first_line(error)}")


def is_peer_loss(error: BaseException) -> bool:
    """Whether the exception comes from a collective or the rendezvous, and so from another rank's end.

    gloo raises plain RuntimeErrors, so their text has to be read.
    """
    if isinstance(error, dist.DistError):
        return True
    text = str(error)
    signs = ("gloo", "Connection closed by peer", "Connection reset by peer", "Broken pipe", "NCCL")
    return isinstance(error, RuntimeError) and any(sign in text for sign in signs)


def _record(directory: Path | None, rank: int, restart: int, kind: str, error: BaseException) -> None:
    if directory is None:
        return
    line = {
        "t": round(time.time(), 3),
        "event": "failed",
        "restart": restart,
        "rank": rank,
        "host": os.environ.get("SLURMD_NODENAME") or socket.gethostname(),
        "kind": kind,
        "error": f"{type(error).__name__}: {_first_line(error)}",
    }
    with suppress(OSError):  # standard error says it as well; nothing may keep a failing rank
        append_line(directory / FAILURES, line)


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0][:400]
