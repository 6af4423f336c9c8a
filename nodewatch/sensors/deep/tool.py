"""One diagnostic that takes seconds to hours: commands with an absolute deadline, which can be stopped at any time.

What a diagnostic does stands in a procedure: a generator that yields the commands to run next, is sent how they ended, and
returns the reading. It does no waiting of its own, so the agent's loop goes on meanwhile.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nodewatch.errors import SensorError
from nodewatch.sensors.child import Child, Ended
from nodewatch.sensors.deep import launch
from nodewatch.sensors.reading import Reading

MAX_OUTPUT = 8 << 20
"""Bytes of one output of one command: the JSON of 16 GPUs at level 4 is a tenth of that."""
DIRECTORIES = ("/opt/amazon/efa/bin", "/opt/nccl-tests/build", "/usr/local/sbin", "/usr/sbin", "/sbin")
"""Looked through after PATH: where AWS's EFA installer and its images put their tools, and what a service's PATH may lack."""
SCOPE = ("systemd-run", "--scope", "--quiet", "--collect", "--")
"""Puts a command into a control group of its own, in the same process: the agent's has 256 MB and half a processor, which
would have a stress test killed and a bandwidth measured wrong."""

_KILL_WAIT_S = 1.0
"""After SIGKILL; what is still there hangs in the kernel."""
_LINGER_S = 2.0
"""What the others of a step have to end in after its last command has ended."""
_LOOK_S = 0.5
_CLOSE_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command of a step, begun `after_s` seconds after the step; `env` is added to the agent's own environment."""

    argv: tuple[str, ...]
    after_s: float = 0.0
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Commands that run side by side. The last of them is the one that is waited for, `within_s` seconds at most.

    None: as long as the diagnostic's own deadline allows.
    """

    commands: tuple[Command, ...]
    within_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one command ended. `is_late`: it did not by itself, and what it wrote until then is here."""

    returncode: int
    stdout: str
    stderr: str
    is_late: bool = False

    @property
    def text(self) -> str:
        """Both outputs."""
        return f"{self.stdout}\n{self.stderr}"

    @property
    def last_line(self) -> str:
        """The last thing that it said, for a sentence."""
        lines = [line.strip() for line in (*self.stdout.splitlines(), *self.stderr.splitlines()) if line.strip()]
        return lines[-1][:200] if lines else "it said nothing"


Procedure = Generator[Step, tuple[Outcome, ...], Reading]


@dataclass(slots=True)
class _Ending:
    """Commands that are being ended. `why` is the error of the reading then; None: the procedure goes on."""

    why: str | None
    since: float
    killed_at: float | None = None


@dataclass(slots=True)
class _Run:
    """A step that is under way."""

    step: Step
    began_at: float
    children: dict[int, Child] = field(default_factory=dict)
    ended: dict[int, Ended] = field(default_factory=dict)
    last_ended_at: float | None = None
    is_late: bool = False


class ToolSensor:
    """Polled source of one diagnostic's sample: satisfies PolledSensor, and can be stopped.

    One run at a time, and with `lock` one on the machine. A tool that hangs in the kernel is left behind; while it is there
    no other run is begun.
    """

    def __init__(
        self,
        name: str,
        reads: type[Any],
        procedure: Callable[[], Procedure],
        *,
        deadline_s: float,
        grace_s: float = 1.0,
        lock: Path | None = None,
        prefix: tuple[str, ...] = (),
    ) -> None:
        """`grace_s` is what the tool has between SIGTERM and SIGKILL; `prefix` is put before each command (see SCOPE)."""
        self._name = name
        self._reads = reads
        self._make = procedure
        self._deadline_s = deadline_s
        self._grace_s = grace_s
        self._lock_path = lock
        self._prefix = prefix
        self._lock: int | None = None
        self._procedure: Procedure | None = None
        self._run: _Run | None = None
        self._ending: _Ending | None = None
        self._reading: Reading | None = None
        self._left: list[Child] = []
        self._began_at = 0.0
        self._looked_at = 0.0

    @property
    def name(self) -> str:
        """The word for this diagnostic in logs and metrics."""
        return self._name

    @property
    def reads(self) -> type[Any]:
        """The type of its samples."""
        return self._reads

    @property
    def deadline_s(self) -> float:
        """How long it may take, at most; ending one that is late takes a few seconds more."""
        return self._deadline_s

    def start(self, now: float) -> None:
        """Begin a run; nothing happens while one is under way or its reading was not fetched."""
        if self._procedure is not None or self._reading is not None:
            return
        self._left = [child for child in self._left if child.poll() is None]
        self._began_at = self._looked_at = now
        if self._left:
            self._reading = Reading(
                error=f"{self._name} was not run: process {self._left[0].pid} of the run before hangs in the kernel and "
                "cannot be ended: look at the kernel log and reboot the node"
            )
            return
        try:
            self._take_lock()
        except SensorError as error:
            self._reading = Reading(error=str(error))
            return
        self._procedure = self._make()
        self._advance(None, now)

    def filenos(self) -> tuple[int, ...]:
        """The outputs that the running commands have not closed."""
        if self._run is None or self._reading is not None:
            return ()
        return tuple(fd for child in self._run.children.values() for fd in child.filenos())

    def due_at(self) -> float | None:
        """When to look again: a command may end without a word, or close its output long before it ends."""
        if self._reading is not None:
            return 0.0
        if self._run is None:
            return None
        waits = [self._looked_at + _LOOK_S, self._began_at + self._deadline_s]
        waits += [self._run.began_at + command.after_s for _, command in self._to_begin(self._run)]
        if self._ending is not None:
            waits = [self._looked_at + 0.05]
        return max(self._looked_at, min(waits))

    def result(self, now: float) -> Reading | None:
        """The reading of the run that was begun, once; None while it is under way."""
        self._looked_at = now
        if self._run is not None and self._reading is None:
            self._look(self._run, now)
        reading, self._reading = self._reading, None
        return reading

    def stop(self, why: str, now: float) -> None:
        """End the run: SIGTERM to each command's process group, SIGKILL when that did not help. Its reading says `why`."""
        if self._run is None or self._reading is not None:
            return
        if self._ending is None:
            self._end(self._run, why, now)
        elif self._ending.why is None:
            self._ending.why = why

    def close(self) -> None:
        """End what runs: half a second for those that clean up on SIGTERM, then SIGKILL; without waiting for what hangs."""
        run, self._run = self._run, None
        children = [] if run is None else list(run.children.values())
        for child in children:
            child.signal(signal.SIGTERM)
        end = time.monotonic() + _CLOSE_S
        while children and time.monotonic() < end:
            children = [child for child in children if child.poll() is None]
            time.sleep(0.02)
        for child in (*children, *self._left):
            child.kill()
        self._left = []
        self._finish(None)

    def _look(self, run: _Run, now: float) -> None:
        is_cut = False
        for number, child in list(run.children.items()):
            ended = child.poll()
            is_cut = is_cut or child.is_cut
            if ended is not None:
                del run.children[number]
                run.ended[number] = ended
        if len(run.step.commands) - 1 in run.ended and run.last_ended_at is None:
            run.last_ended_at = now
        if self._ending is not None:
            self._go_on_ending(run, self._ending, now)
        elif is_cut:
            self._end(
                run, f"{self._name} wrote more than {MAX_OUTPUT >> 20} MiB, which is no result: run it by hand", now
            )
        elif now >= self._began_at + self._deadline_s:
            self._end(
                run,
                f"{self._name} has not ended within {self._deadline_s:g} s: run it by hand and look where it hangs",
                now,
            )
        elif run.step.within_s is not None and run.last_ended_at is None and now >= run.began_at + run.step.within_s:
            run.is_late = True
            self._end(run, None, now)
        elif run.last_ended_at is not None and not run.children:
            self._advance(self._outcomes(run), now)
        elif run.last_ended_at is not None and now >= run.last_ended_at + _LINGER_S:
            self._end(run, None, now)
        else:
            self._begin(run, now)

    def _end(self, run: _Run, why: str | None, now: float) -> None:
        self._ending = _Ending(why, now)
        for child in run.children.values():
            child.signal(signal.SIGTERM)
        self._go_on_ending(run, self._ending, now)

    def _go_on_ending(self, run: _Run, ending: _Ending, now: float) -> None:
        if run.children and ending.killed_at is None and now >= ending.since + self._grace_s:
            ending.killed_at = now
            for child in run.children.values():
                child.signal(signal.SIGKILL)
        is_hung = bool(run.children) and ending.killed_at is not None and now >= ending.killed_at + _KILL_WAIT_S
        if run.children and not is_hung:
            return
        for number, child in run.children.items():
            child.kill()
            self._left.append(child)
            run.ended[number] = Ended(returncode=-signal.SIGKILL, stdout="", stderr="")
        run.children.clear()
        self._ending = None
        if ending.why is not None:
            self._finish(Reading(error=ending.why))
        elif is_hung:
            self._finish(Reading(error=f"{self._name} hangs in the kernel and cannot be ended: look at the kernel log"))
        else:
            self._advance(self._outcomes(run), now)

    def _outcomes(self, run: _Run) -> tuple[Outcome, ...]:
        last = len(run.step.commands) - 1
        return tuple(
            Outcome(
                returncode=run.ended[number].returncode if number in run.ended else 0,
                stdout=run.ended[number].stdout if number in run.ended else "",
                stderr=run.ended[number].stderr if number in run.ended else "",
                is_late=run.is_late and number == last,
            )
            for number in range(len(run.step.commands))
        )

    def _advance(self, outcomes: tuple[Outcome, ...] | None, now: float) -> None:
        """Give the procedure what came, and begin what it wants next."""
        assert self._procedure is not None
        try:
            for command, outcome in zip(
                () if self._run is None else self._run.step.commands, outcomes or (), strict=False
            ):
                _refuse_unrunnable(command, outcome)
            step = next(self._procedure) if outcomes is None else self._procedure.send(outcomes)
        except StopIteration as end:
            self._finish(end.value)
        except SensorError as error:
            self._finish(Reading(error=str(error)))
        except Exception as error:
            # A mistake in reading one tool's output must not end the agent.
            self._finish(Reading(error=f"{self._name} could not be read ({type(error).__name__}: {error}): report it"))
        else:
            self._run = _Run(step, now)
            self._begin(self._run, now)

    def _to_begin(self, run: _Run) -> list[tuple[int, Command]]:
        return [
            (number, command)
            for number, command in enumerate(run.step.commands)
            if number not in run.children and number not in run.ended
        ]

    def _begin(self, run: _Run, now: float) -> None:
        for number, command in self._to_begin(run):
            if now < run.began_at + command.after_s:
                continue
            try:
                run.children[number] = Child(
                    (*self._prefix, *launched(command.argv)), now=now, env=_environment(command.env), at_most=MAX_OUTPUT
                )
            except OSError as error:
                self._end(run, f"{self._name} cannot be started ({error.strerror}): free memory or processes", now)
                return

    def _finish(self, reading: Reading | None) -> None:
        if self._procedure is not None:
            self._procedure.close()
        self._procedure = self._run = self._ending = None
        self._reading = reading
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _take_lock(self) -> None:
        if self._lock_path is None:
            return
        try:
            self._lock = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None
            if isinstance(error, BlockingIOError):
                raise SensorError(
                    f"{self._name} was not run: another deep diagnostic runs on this node and holds {self._lock_path}"
                ) from error
            raise SensorError(
                f"{self._name} was not run: {self._lock_path} cannot be locked ({error.strerror}): set lock to a path that can"
            ) from error


def launched(argv: tuple[str, ...]) -> tuple[str, ...]:
    """`argv`, run by launch.py."""
    return (sys.executable, "-I", "-S", str(Path(launch.__file__).resolve()), str(os.getpid()), *argv)


def search_path() -> str:
    """PATH, and where the tools are on AWS's images."""
    return os.pathsep.join((os.environ.get("PATH", os.defpath), *DIRECTORIES))


def _environment(added: Mapping[str, str]) -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C", "PATH": search_path(), **added}


def _refuse_unrunnable(command: Command, outcome: Outcome) -> None:
    """Raise SensorError for a command that is not there or cannot be executed, by itself or by a shell around it."""
    if outcome.returncode in (126, 127):
        what = "is not installed" if outcome.returncode == 127 else "cannot be executed"
        raise SensorError(
            f"{command.argv[0]} {what} ({outcome.last_line}): put it right, or switch it off in [deep] of agent.toml"
        )
