"""Run a command: an argv list, an absolute deadline, its whole process group killed past it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandResult:
    """How a command ended. `timed_out` means that it was killed; `missing` that there is no such program."""

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str
    timed_out: bool = False
    missing: bool = False

    @property
    def ok(self) -> bool:
        """Ended by itself with exit code 0."""
        return self.returncode == 0 and not self.timed_out and not self.missing

    @property
    def complaint(self) -> str:
        """One line that says how it failed."""
        if self.missing:
            return f"{self.argv[0]} is not installed"
        if self.timed_out:
            return f"{self.argv[0]} did not answer in time and was killed"
        last = (self.stderr.strip() or self.stdout.strip()).splitlines()
        return last[-1] if last else f"{self.argv[0]} ended with exit code {self.returncode} and no word"


def run(argv: Sequence[str], *, deadline_s: float, env: Mapping[str, str] | None = None) -> CommandResult:
    """Run `argv` and wait for it, at most `deadline_s` seconds. Never raises for how the command fares."""
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=None if env is None else dict(env),
            start_new_session=True,
        )
    except FileNotFoundError:
        return CommandResult(argv=tuple(argv), returncode=127, stdout="", stderr="", missing=True)
    except (OSError, ValueError) as error:
        # Not executable, too long, or with a zero byte in it: ValueError is how subprocess says the last.
        return CommandResult(argv=tuple(argv), returncode=126, stdout="", stderr=f"{argv[0]} cannot be run: {error}")
    try:
        out, err = process.communicate(timeout=deadline_s)
        timed_out = False
    except subprocess.TimeoutExpired:
        timed_out = True
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        try:
            # A process in an uninterruptible sleep outlives SIGKILL: do not wait for it for ever.
            out, err = process.communicate(timeout=1.0)
        except subprocess.TimeoutExpired:
            out, err = b"", b""
    return CommandResult(
        argv=tuple(argv),
        returncode=process.returncode if process.returncode is not None else -9,
        stdout=out.decode("utf-8", "replace"),
        stderr=err.decode("utf-8", "replace"),
        timed_out=timed_out,
    )
