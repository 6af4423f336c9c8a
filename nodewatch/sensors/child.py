"""A child process with a deadline that nobody waits for: it is asked now and then whether it has ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_MAX_OUTPUT = 65536
_MAX_READS = 64
"""Reads of 64 KiB that one look takes: a child that writes without end must not hold up the one who looks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a child ended. `returncode` is negative for a signal, as in subprocess."""

    returncode: int
    stdout: str
    stderr: str


class Child:
    """One running command in its own session. Of each output what lies beyond `at_most` bytes is dropped."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        now: float,
        env: Mapping[str, str] | None = None,
        at_most: int = _MAX_OUTPUT,
    ) -> None:
        """Start `argv`. Raises OSError when it cannot be started."""
        self.started_at = now
        self._at_most = at_most
        self._process = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env=None if env is None else dict(env),
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._out = self._process.stdout.fileno()
        self._err = self._process.stderr.fileno()
        self._stdout = bytearray()
        self._stderr = bytearray()
        self._open = {self._out, self._err}
        self._is_cut = False
        for fd in (self._out, self._err):
            os.set_blocking(fd, False)

    @property
    def pid(self) -> int:
        """The process id, which is also its group's."""
        return self._process.pid

    @property
    def is_cut(self) -> bool:
        """Whether output was dropped."""
        return self._is_cut

    def fileno(self) -> int:
        """Readable when the child wrote something or closed its output, which it does at its end."""
        return self._out

    def filenos(self) -> tuple[int, ...]:
        """Both outputs, without those that the child has closed: a closed one is readable for ever."""
        return tuple(sorted(self._open))

    def poll(self) -> Ended | None:
        """How it ended, or None while it runs. What it left behind in its process group is killed. Never blocks."""
        # Read before asking for the end, or a child with much to say would block on a full pipe for ever.
        self._drain()
        if self._process.returncode is None:
            with contextlib.suppress(ChildProcessError):
                if os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                    return None
            # Until it is reaped no other process can have its number: what it started must not outlive it.
            self.signal(signal.SIGKILL)
        returncode = self._process.poll()
        if returncode is None:
            return None
        self._drain()
        self._close_pipes()
        return Ended(
            returncode=returncode,
            stdout=self._stdout.decode("utf-8", "replace"),
            stderr=self._stderr.decode("utf-8", "replace"),
        )

    def signal(self, number: int) -> None:
        """Send a signal to its process group, unless it has ended and was reaped."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)

    def kill(self) -> None:
        """Send SIGKILL to its process group and forget it. One in an uninterruptible wait goes when the kernel lets it."""
        self.signal(signal.SIGKILL)
        self._process.poll()
        self._close_pipes()

    def _drain(self) -> None:
        for fd, into in ((self._out, self._stdout), (self._err, self._stderr)):
            with contextlib.suppress(BlockingIOError, OSError, ValueError):
                for _ in range(_MAX_READS):
                    if fd not in self._open:
                        break
                    chunk = os.read(fd, 65536)
                    if not chunk:
                        self._open.discard(fd)
                    kept = chunk[: max(0, self._at_most - len(into))]
                    self._is_cut = self._is_cut or len(kept) < len(chunk)
                    into.extend(kept)

    def _close_pipes(self) -> None:
        self._open.clear()
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()
