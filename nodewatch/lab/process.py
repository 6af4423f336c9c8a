"""Commands on the host: an argv list and a deadline, the whole process group ended past it."""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from nodewatch.lab.errors import LabError


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A command that ended by itself."""

    code: int
    out: str
    err: str


def run(
    argv: Sequence[str | Path],
    *,
    deadline_s: float,
    check: bool = True,
    stdin_text: str | None = None,
    log: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> Finished:
    """Run `argv` for at most `deadline_s` seconds. With `log`, both outputs go to the end of that file.

    Raises LabError when it cannot be started, does not end in time, or (with `check`) exits non-zero.
    """
    words = [str(word) for word in argv]
    with ExitStack() as stack:
        sink = stack.enter_context(open(log, "ab")) if log else subprocess.PIPE
        try:
            child = subprocess.Popen(
                words,
                stdin=subprocess.PIPE if stdin_text is not None else subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT if log else subprocess.PIPE,
                env=None if env is None else dict(env),
                # A group of its own: past the deadline the grandchildren have to go too, or they hold the pipes open.
                start_new_session=True,
            )
        except OSError as error:
            raise LabError(f"{words[0]} could not be started: {error.strerror}") from error
    try:
        out, err = child.communicate(stdin_text.encode() if stdin_text is not None else None, timeout=deadline_s)
    except subprocess.TimeoutExpired:
        _end_group(child)
        raise LabError(f"{_shown(words)} did not end within {deadline_s:.0f} s") from None
    except BaseException:
        # Ctrl-C must not leave a debootstrap running behind the prompt.
        _end_group(child)
        raise
    finished = Finished(
        code=child.returncode,
        out=(out or b"").decode(errors="replace"),
        err=(err or b"").decode(errors="replace"),
    )
    if check and finished.code != 0:
        said = tail(log) if log else finished.err.strip() or finished.out.strip()
        raise LabError(f"{_shown(words)} failed with exit code {finished.code}: {said[-600:]}")
    return finished


def through(argv: Sequence[str | Path], *, env: Mapping[str, str]) -> int:
    """Run `argv` with this process's own input and outputs, however long; the exit code as a shell would tell it."""
    child = subprocess.Popen([str(word) for word in argv], env=dict(env))
    while True:
        try:
            _, status = os.waitpid(child.pid, os.WUNTRACED)
        except KeyboardInterrupt:
            # The command has had the terminal's Ctrl-C too; what it makes of it decides.
            continue
        if os.WIFSTOPPED(status):
            # A machine that shuts down stops every process before it ends them, and nsenter stops itself with its
            # child: from outside the machine nobody else would ever wake it.
            child.send_signal(signal.SIGCONT)
            continue
        child.returncode = code = os.waitstatus_to_exitcode(status)
        return code if code >= 0 else 128 - code


def tail(path: Path, lines: int = 6) -> str:
    """The last lines of a log, for an error message; empty when there is none."""
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


def _end_group(child: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _shown(words: Sequence[str]) -> str:
    text = " ".join(words)
    return text if len(text) <= 160 else text[:157] + "..."
