"""Run a job's step on some nodes of its allocation, and again on others when a node fails, without a way through the queue.

    python -m nodewatch_train.supervise [--spares K] [--min-nodes M] -- srun ARGS...

For the batch script of a job with `--auto-resume=N,spares=K`. srun runs on all nodes but K. The node's agents tell in the
file that NODEWATCH_BAD_NODES names which nodes of the job are bad: a step on such a node is ended, and started again on those
that are left. docs/training.md says what it needs. Which nodes, and when it is over: `inside`. Standard library only, and of
Slurm's commands only srun.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from nodewatch_train import inside
from nodewatch_train.heartbeats import HEARTBEATS
from nodewatch_train.inside import Ended, Terms

BAD_NODES = "NODEWATCH_BAD_NODES"
"""Environment variable: the file in which this node's agent keeps the names of the job's bad nodes, one a line."""
WORD_S = 8.0
"""So long a step that failed waits for word of a bad node. An agent notices within a second, and each hears within the next
two from the controller; a rank may die before either."""
GRACE_S = 5.0
"""srun has so long to end a step; then it is killed, and its shepherd process asks Slurm to end the step."""
_POLL_S = 0.1
_TAIL = 1 << 16
_USAGE = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Seconds; see WORD_S and GRACE_S."""

    word_s: float = WORD_S
    grace_s: float = GRACE_S


class Supervisor:
    """Starts srun and watches it. `say` gets one line for the job's output at a time."""

    def __init__(
        self,
        command: Sequence[str],
        terms: Terms,
        *,
        environment: Mapping[str, str],
        allocation: Sequence[str],
        patience: Patience,
        say: Callable[[str], None],
    ) -> None:
        self._command = list(command)
        self._terms = terms
        self._environment = environment
        self._allocation = list(allocation)
        self._patience = patience
        self._say = say
        self._bad: dict[str, None] = {}
        """In the order in which they were heard of. What was bad once is not used again in this job."""
        self._child: subprocess.Popen[bytes] | None = None
        self._stopping = 0

    def run(self) -> int:
        """Until the step has ended well, or for good. The exit code of the last try."""
        tries: list[Ended] = []
        self._hear()
        choice = inside.begin(self._allocation, self._bad, self._terms)
        while choice.nodes:
            self._say(choice.why if not tries else f"restart {len(tries)}: {choice.why}")
            tries.append(self._try(choice.nodes, len(tries)))
            if self._stopping:
                self._say(f"stopped by signal {self._stopping}: not started again")
                return tries[-1].code or 128 + self._stopping
            choice = inside.after(self._allocation, self._bad, tries, self._terms)
        if choice.code:
            self._say(f"not started again: {choice.why}")
        return choice.code

    def stop(self, number: int, _frame: FrameType | None = None) -> None:
        """A signal that ends the job: srun kills the step at once when it gets it."""
        self._stopping = number
        self._pass_on(signal.SIGTERM)

    def tell(self, number: int, _frame: FrameType | None = None) -> None:
        """A signal for the program: srun passes it to every rank."""
        self._pass_on(number)

    def _pass_on(self, number: int) -> None:
        child = self._child
        if child is not None and child.poll() is None:
            child.send_signal(number)

    def _try(self, nodes: tuple[str, ...], number: int) -> Ended:
        told, options = inside.step_environment(
            self._environment, nodes, allocated=len(self._allocation), number=number
        )
        self._child = child = subprocess.Popen([self._command[0], *options, *self._command[1:]], env=told)
        if self._stopping:
            self._pass_on(signal.SIGTERM)
        while child.poll() is None and not self._hear().intersection(nodes):
            time.sleep(_POLL_S)
        is_ended = child.poll() is None
        if is_ended:
            self._say(f"{_names(self._hear().intersection(nodes))} failed: the step is ended")
            self._end(child)
        code = child.wait()
        # As a shell counts a death by a signal; and a step that was ended at our word may still report success.
        code = 128 - code if code < 0 else code or int(is_ended)
        self._wait_for_word(nodes, code)
        bad = tuple(name for name in self._bad if name in nodes)
        return Ended(nodes=nodes, code=code, bad=bad, step=self._step())

    def _wait_for_word(self, nodes: tuple[str, ...], code: int) -> None:
        end = time.monotonic() + self._patience.word_s
        while code not in (0, inside.REFUSED, inside.STOPPED) and not self._stopping and time.monotonic() < end:
            if self._hear().intersection(nodes):
                return
            time.sleep(_POLL_S)

    def _end(self, child: subprocess.Popen[bytes]) -> None:
        child.terminate()
        try:
            child.wait(self._patience.grace_s)
        except subprocess.TimeoutExpired:
            child.kill()

    def _hear(self) -> set[str]:
        """All nodes known to be bad."""
        path = self._environment.get(BAD_NODES) or _usual_path(self._environment)
        with contextlib.suppress(OSError):
            for name in Path(path).read_text(encoding="utf-8", errors="replace").split():
                self._bad.setdefault(name)
        return set(self._bad)

    def _step(self) -> int | None:
        """The highest step that is known: of this node's ranks, or of the run's record where --auto-resume names it."""
        return max(self._steps(), default=None)

    def _steps(self) -> Iterator[int]:
        heartbeats = self._environment.get(HEARTBEATS)
        directory = inside.directory_of(self._environment.get("NODEWATCH_AUTO_RESUME", ""))
        directory = directory or self._environment.get("CHECKPOINT_DIR", "")
        with contextlib.suppress(OSError):
            for path in Path(heartbeats).iterdir() if heartbeats else ():
                yield from _steps_in(path.read_bytes()[:_TAIL])
        with contextlib.suppress(OSError):
            if directory:
                with (Path(directory) / "progress.jsonl").open("rb") as file:
                    file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
                    yield from _steps_in(file.read())


def _steps_in(raw: bytes) -> Iterator[int]:
    for line in raw.splitlines():
        with contextlib.suppress(ValueError):
            told = json.loads(line)
            step = told.get("step") if isinstance(told, dict) else None
            if isinstance(step, int):
                yield step


def _usual_path(environment: Mapping[str, str]) -> str:
    return f"/run/nodewatch/jobs/{environment.get('SLURM_JOB_ID', '0')}/bad-nodes"


def _names(nodes: set[str]) -> str:
    return " and ".join(sorted(nodes))


def _say(line: str) -> None:
    print(f"supervise: {line}", file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None, environment: Mapping[str, str] = os.environ) -> int:
    """The command. Returns its exit code: the step's, or 2 for a call that cannot be meant."""
    parser = argparse.ArgumentParser(
        prog="python -m nodewatch_train.supervise",
        description="Run srun on some nodes of this job, and again on its other nodes when one fails.",
    )
    parser.add_argument(
        "--spares", type=int, help="nodes that wait for another to fail; default: spares=K of --auto-resume"
    )
    parser.add_argument("--min-nodes", type=int, help="go on with as few; default: as many as it began with")
    parser.add_argument("--retries", type=int, default=inside.RETRIES, help="starts after failures without a bad node")
    parser.add_argument("--word-s", type=float, default=WORD_S, help="wait so long for word of a bad node")
    parser.add_argument("--grace-s", type=float, default=GRACE_S, help="wait so long for srun to end a step")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="-- srun ARGS...")
    chosen = parser.parse_args(arguments)
    command = chosen.command[1:] if chosen.command[:1] == ["--"] else chosen.command
    spares = chosen.spares
    if spares is None:
        spares = inside.spares_of(environment.get("NODEWATCH_AUTO_RESUME", ""))
    try:
        if not command or Path(command[0]).name != "srun":
            raise ValueError("the command must be srun: python -m nodewatch_train.supervise -- srun ARGS...")
        hostlist = environment.get("SLURM_JOB_NODELIST") or environment.get("SLURM_NODELIST") or ""
        if not hostlist:
            raise ValueError("SLURM_JOB_NODELIST is not set: run it in the batch script of a job")
        allocation = inside.expand(hostlist)
        terms = inside.terms(len(allocation), spares=spares, least=chosen.min_nodes, retries=chosen.retries)
    except ValueError as error:
        _say(str(error))
        return _USAGE
    patience = Patience(word_s=max(0.0, chosen.word_s), grace_s=max(0.0, chosen.grace_s))
    supervisor = Supervisor(command, terms, environment=environment, allocation=allocation, patience=patience, say=_say)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, supervisor.stop)
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, supervisor.tell)
    try:
        return supervisor.run()
    except OSError as error:
        _say(f"{command[0]} cannot be started: {error.strerror}")
        return 127


if __name__ == "__main__":
    sys.exit(main())
