"""A source that is read by running commands, one after the other, each in a child process with a deadline.

Whatever a tool does (is missing, never answers, ignores SIGTERM, prints rubbish without end), the reading ends in time with a
sample or with one sentence. A child that cannot be killed is remembered, and its command is not started again beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nodewatch.errors import SensorError
from nodewatch.sensors.child import Child
from nodewatch.sensors.procfs import NotHere
from nodewatch.sensors.reading import Reading

_LOOK_AGAIN_S = 0.05
"""A child that closed its outputs ends in a moment, and nothing tells when."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """How a command went. `problem` is one sentence when it proves nothing: it was not run, or it did not end by itself."""

    argv: tuple[str, ...]
    returncode: int | None = None
    stdout: str = ""
    stderr: str = ""
    problem: str | None = None
    is_late: bool = False

    @property
    def text(self) -> str:
        """What it printed, on both outputs."""
        return f"{self.stdout}\n{self.stderr}" if self.stderr else self.stdout

    @property
    def last_line(self) -> str:
        """The last line that says something, as evidence."""
        lines = [line.strip() for line in self.text.splitlines() if line.strip()]
        return lines[-1][:200] if lines else "no reason given"

    def must_have_run(self) -> Ran:
        """Itself. Raises SensorError when it proves nothing."""
        if self.problem is not None:
            raise SensorError(self.problem)
        return self


class CommandSensor:
    """Polled source of samples of type `reads`.

    `commands(now)` says what to run, `parse(outputs, now)` makes the sample of all that was run and raises SensorError, or
    `NotHere` where the question does not apply after all. `absent()` says why nothing is to be run here, None to go on.
    """

    def __init__(
        self,
        name: str,
        reads: type[object],
        *,
        commands: Callable[[float], Sequence[Sequence[str]]],
        parse: Callable[[Sequence[Ran], float], object],
        absent: Callable[[], str | None],
        deadline_s: float,
        at_most: int = 1 << 20,
    ) -> None:
        """`deadline_s` is each command's; of its output what lies beyond `at_most` bytes makes it a problem."""
        self.name = name
        self.reads = reads
        self._commands = commands
        self._parse = parse
        self._absent = absent
        self._deadline_s = deadline_s
        self._at_most = at_most
        self._queue: list[tuple[str, ...]] = []
        self._ran: list[Ran] = []
        self._child: Child | None = None
        self._argv: tuple[str, ...] = ()
        self._stuck: list[tuple[tuple[str, ...], Child]] = []
        self._looked_at = 0.0
        self._is_reading = False
        self._ready: Reading | None = None

    def start(self, now: float) -> None:
        """Begin with the first command."""
        if self._is_reading or self._ready is not None:
            return
        self._stuck = [(argv, child) for argv, child in self._stuck if child.poll() is None]
        try:
            why = self._absent()
            commands = [] if why is not None else [tuple(argv) for argv in self._commands(now)]
        except (OSError, SensorError) as error:
            self._ready = Reading(error=f"{self.name} cannot be read ({error})")
            return
        if why is not None:
            self._ready = Reading(not_applicable=why)
            return
        self._is_reading, self._ran, self._queue = True, [], commands
        self._go_on(now)

    def filenos(self) -> tuple[int, ...]:
        """The outputs of the command that runs."""
        return () if self._child is None else self._child.filenos()

    def due_at(self) -> float | None:
        """When the running command is late; at once where there is nothing to wait for."""
        if self._ready is not None:
            return 0.0
        if self._child is None:
            return None
        deadline = self._child.started_at + self._deadline_s
        return deadline if self._child.filenos() else min(deadline, self._looked_at + _LOOK_AGAIN_S)

    def result(self, now: float) -> Reading | None:
        """The sample when the last command has ended or was late."""
        if self._ready is None and self._child is not None:
            self._look(now)
        ready, self._ready = self._ready, None
        return ready

    def close(self) -> None:
        """Send SIGKILL to what runs; a child that cannot be killed yet is left to the kernel."""
        if self._child is not None:
            self._child.kill()
            self._child = None
        self._queue, self._is_reading = [], False

    def _look(self, now: float) -> None:
        assert self._child is not None
        self._looked_at = now
        ended = self._child.poll()
        if ended is None and now - self._child.started_at < self._deadline_s:
            return
        child, self._child = self._child, None
        if ended is None:
            child.kill()
            self._stuck.append((self._argv, child))
            self._ran.append(self._late(self._argv))
        else:
            problem = _problem(self._argv, ended.returncode, ended.stdout + ended.stderr)
            if child.is_cut:
                problem = f"{_shown(self._argv)} printed more than {self._at_most >> 10} KiB: run it by hand"
            self._ran.append(
                Ran(
                    argv=self._argv,
                    returncode=ended.returncode,
                    stdout=ended.stdout,
                    stderr=ended.stderr,
                    problem=problem,
                )
            )
        self._go_on(now)

    def _go_on(self, now: float) -> None:
        while self._queue and self._child is None:
            argv = self._queue.pop(0)
            if any(argv == other for other, _ in self._stuck):
                # A second one would hang beside the first, and a week of them fill the process table.
                self._ran.append(self._late(argv))
                continue
            try:
                self._child, self._argv = Child(argv, now=now, at_most=self._at_most), argv
            except OSError as error:
                problem = f"{argv[0]} cannot be started ({error.strerror}): install it or correct PATH"
                self._ran.append(Ran(argv=argv, problem=problem))
        if self._child is None:
            self._is_reading = False
            self._ready = self._made(now)

    def _made(self, now: float) -> Reading:
        try:
            return Reading(sample=self._parse(tuple(self._ran), now))
        except NotHere as why:
            return Reading(not_applicable=str(why))
        except SensorError as error:
            return Reading(error=str(error))
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, OSError, RecursionError) as error:
            return Reading(error=f"what {self.name} said cannot be read ({type(error).__name__}: {error})")

    def _late(self, argv: tuple[str, ...]) -> Ran:
        problem = f"{_shown(argv)} did not answer within {self._deadline_s:g} s: it was ended"
        return Ran(argv=argv, problem=problem, is_late=True)


def _problem(argv: tuple[str, ...], returncode: int, text: str) -> str | None:
    # The shell's words for "cannot be run" and "not found": of the installation, never of what the tool would have judged.
    if returncode in (126, 127):
        return f"{_shown(argv)} cannot be run (status {returncode}): install it or correct its mode"
    if returncode < 0:
        return f"{_shown(argv)} was ended by signal {-returncode}: run it by hand"
    if returncode != 0 and not text.strip():
        return f"{_shown(argv)} failed with status {returncode} and said nothing: run it by hand"
    return None


def _shown(argv: Sequence[str]) -> str:
    return " ".join(argv)[:80]
