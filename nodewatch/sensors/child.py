"""A child process with a deadline that nobody waits for: it is asked now and then whether it has ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_MAX_OUTPUT = 65536


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a child ended. `returncode` is negative for a signal, as in subprocess."""

    returncode: int
    stdout: str
    stderr: str


class Child:
    """One running command in its own session. Output beyond 64 KiB is dropped."""

    def __init__(self, argv: Sequence[str], *, now: float, env: Mapping[str, str] | None = None) -> None:
        """Start `argv`. Raises OSError when it cannot be started."""
        self.started_at = now
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
        for fd in (self._out, self._err):
            os.set_blocking(fd, False)

    @property
    def pid(self) -> int:
        """The process id, which is also its group's."""
        return self._process.pid

    def fileno(self) -> int:
        """Readable when the child wrote something or closed its output, which it does at its end."""
        return self._out

    def poll(self) -> Ended | None:
        """How it ended, or None while it runs. Never blocks."""
        # Read before asking for the end, or a child with much to say would block on a full pipe for ever.
        self._drain()
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

    def kill(self) -> None:
        """Send SIGKILL to its process group and forget it. One in an uninterruptible wait goes when the kernel lets it."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.poll()
        self._close_pipes()

    def _drain(self) -> None:
        for fd, into in ((self._out, self._stdout), (self._err, self._stderr)):
            with contextlib.suppress(BlockingIOError, OSError, ValueError):
                while chunk := os.read(fd, 65536):
                    into.extend(chunk[: max(0, _MAX_OUTPUT - len(into))])

    def _close_pipes(self) -> None:
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()
