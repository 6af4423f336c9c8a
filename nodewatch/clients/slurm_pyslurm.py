"""Slurm through pyslurm, which speaks to slurmctld by libslurm: no command is started for each reading.

pyslurm runs in a child process (slurm_pyslurm_child.py) that is ended when an answer is late, and begun anew every ten minutes:
libslurm reads slurm.conf only once, and a changed SlurmctldHost must be seen.

What pyslurm does not offer is done by the commands: rebooting, the configuration in scontrol's names, requeueing an array's
task by `<job>_<task>`, and emptying a job's list of nodes. What it shows less of than the JSON does: one word for a job's state
(COMPLETING alone while a job that failed or was requeued is cleaned up after; 22.05's JSON does so too), and an exit code
above 127 less 128.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from nodewatch.clients.slurm_commands import SlurmCommands
from nodewatch.clients.slurm_json import jobs_of, nodes_of
from nodewatch.errors import SlurmError
from nodewatch.model.cluster import SlurmJob, SlurmNode
from nodewatch.model.hostlist import fold

_T = TypeVar("_T")

_log = logging.getLogger("nodewatch.slurm")
_CHILD_LIFE_S = 600.0
_MOST_ANSWER = 1 << 30
"""Bytes. 100,000 nodes are about 20 MB: more than this is no answer but a fault that would eat the machine's memory."""

CHILD = (sys.executable, "-P", "-m", "nodewatch.clients.slurm_pyslurm_child")
"""-P: the directory that the controller was started in is no place to import from."""


class PyslurmUnusableError(SlurmError):
    """pyslurm cannot be imported or is not as documented, as after an update; nothing was asked of Slurm in vain."""


class SlurmPyslurm:
    """Slurm by pyslurm, each call under `deadline_s` seconds. Methods: effects.perform.SlurmClient.

    When pyslurm stops being usable while we run, all goes to the commands from then on, and `given_up` says why: every call
    may be done twice, and a controller without a picture of the cluster heals nothing.
    """

    def __init__(self, *, deadline_s: float = 10.0, argv: Sequence[str] = CHILD) -> None:
        """`argv` is the child's command."""
        self._commands = SlurmCommands(deadline_s=deadline_s)
        self._child = _Child(argv, deadline_s)
        self.given_up = ""

    def close(self) -> None:
        """End the child process. The next call begins another."""
        self._child.close()

    # -- reading ------------------------------------------------------------------------------------------------------

    def nodes(self) -> dict[str, SlurmNode]:
        """All nodes by name. Raises SlurmError unless the whole list was read."""
        return self._either(lambda: self._read("nodes", nodes_of), self._commands.nodes)

    def jobs(self) -> dict[int, SlurmJob]:
        """All jobs that slurmctld still knows, by job id. Raises SlurmError."""
        return self._either(lambda: self._read("jobs", jobs_of), self._commands.jobs)

    def config(self) -> dict[str, str]:
        """slurmctld's configuration, by scontrol: pyslurm has other names for it. Raises SlurmError."""
        return self._commands.config()

    def version(self) -> str:
        """The release of the commands. Raises SlurmError."""
        return self._commands.version()

    # -- changing -----------------------------------------------------------------------------------------------------

    def drain(self, node: str, reason: str) -> None:
        """See effects.perform.SlurmControl."""
        self._either(
            lambda: self._update(node, state="DRAIN", reason=reason), lambda: self._commands.drain(node, reason)
        )

    def mark_down(self, node: str, reason: str) -> None:
        """See effects.perform.SlurmControl."""
        self._either(
            lambda: self._update(node, state="DOWN", reason=reason), lambda: self._commands.mark_down(node, reason)
        )

    def set_reason(self, node: str, reason: str, *, was: str) -> None:
        """See effects.perform.SlurmControl."""
        known = self.nodes().get(node)
        if known is not None and known.reason == was:
            self._either(
                lambda: self._update(node, reason=reason), lambda: self._commands.set_reason(node, reason, was=was)
            )

    def resume(self, node: str) -> None:
        """See effects.perform.SlurmControl."""
        try:
            self._either(lambda: self._update(node, state="RESUME"), lambda: self._commands.resume(node))
        except SlurmError as error:
            # Slurm refuses to resume a node that is in service already: the wish is met.
            if "Invalid node state" not in str(error) or self._is_out(node):
                raise

    def set_address(self, node: str, address: str) -> None:
        """See effects.perform.SlurmControl."""
        self._either(lambda: self._update(node, address=address), lambda: self._commands.set_address(node, address))

    def reboot(self, node: str, reason: str) -> None:
        """See effects.perform.SlurmControl. By scontrol: pyslurm cannot reboot."""
        self._commands.reboot(node, reason)

    def requeue(self, job: int | str) -> None:
        """See effects.perform.SlurmControl. A task of an array by scontrol: pyslurm takes numbers only."""
        if not str(job).isdigit():
            self._commands.requeue(job)
            return
        try:
            self._either(lambda: self._change("requeue", job_id=int(job)), lambda: self._commands.requeue(job))
        except SlurmError as error:
            if "pending" not in str(error).lower():
                raise

    def release(self, job: int | str) -> None:
        """See effects.perform.SlurmControl. A task of an array by scontrol: pyslurm takes numbers only."""
        if not str(job).isdigit():
            self._commands.release(job)
            return
        self._either(lambda: self._change("release", job_id=int(job)), lambda: self._commands.release(job))

    def expedite(
        self,
        job: int | str,
        *,
        priority: int,
        exclude: Sequence[str],
        comment: str,
        require: Sequence[str] | None = None,
    ) -> None:
        """See effects.perform.SlurmControl. By scontrol for an array's task, and where a field is to be emptied: to pyslurm,
        empty is unchanged."""

        def by_commands() -> None:
            self._commands.expedite(job, priority=priority, exclude=exclude, comment=comment, require=require)

        if not exclude or not comment or (require is not None and not require) or not str(job).isdigit():
            by_commands()
            return
        changes: dict[str, Any] = {
            "begin_time": "now",
            "priority": priority,
            "comment": comment,
            "excluded_nodes": sorted(set(exclude)),
        }
        if require is not None:
            changes["required_nodes"] = sorted(set(require))
        self._either(lambda: self._change("update_job", job_id=int(job), changes=changes), by_commands)

    def reserve(self, name: str, nodes: Sequence[str], minutes: int) -> None:
        """See effects.perform.SlurmControl."""
        self._either(
            lambda: self._change("reserve", name=name, nodes=fold(nodes), minutes=minutes),
            lambda: self._commands.reserve(name, nodes, minutes),
        )

    def unreserve(self, name: str) -> None:
        """See effects.perform.SlurmControl."""
        self._either(lambda: self._change("unreserve", name=name), lambda: self._commands.unreserve(name))

    # -- below --------------------------------------------------------------------------------------------------------

    def _is_out(self, node: str) -> bool:
        known = self.nodes().get(node)
        return known is None or known.is_out or known.is_down

    def _either(self, by_pyslurm: Callable[[], _T], by_commands: Callable[[], _T]) -> _T:
        if not self.given_up:
            try:
                return by_pyslurm()
            except PyslurmUnusableError as error:
                self.given_up = f"{error}; the commands are used until nodewatch-controller is restarted"
                _log.warning("%s", self.given_up)
                self._child.close()
        return by_commands()

    def _read(self, call: str, read: Callable[[Mapping[str, Any], str], _T]) -> _T:
        document = self._child.ask(call, {})
        try:
            return read(document, f"pyslurm's list of {call}")
        except SlurmError as error:
            # The commands may be readable where pyslurm's fields have changed.
            raise PyslurmUnusableError(str(error)) from error

    def _update(self, node: str, **changes: str) -> None:
        self._change("update_node", name=node, changes=changes)

    def _change(self, call: str, **arguments: Any) -> None:
        self._child.ask(call, arguments)


class _Child:
    """The process with pyslurm in it, one question at a time. Threads wait for each other."""

    def __init__(self, argv: Sequence[str], deadline_s: float) -> None:
        self._argv = list(argv)
        self._deadline_s = deadline_s
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._began = 0.0
        self._buffer = bytearray()

    def ask(self, call: str, arguments: Mapping[str, Any]) -> Any:
        """The value that `call` gives. Raises SlurmError, and PyslurmUnusableError when pyslurm is at fault."""
        question = json.dumps({"call": call, "arguments": arguments})
        if "\\u0000" in question:
            # pyslurm would cut the text there and say nothing.
            raise SlurmError(f"pyslurm: {call} cannot be asked: a text has an embedded null byte")
        with self._lock:
            end = time.monotonic() + self._deadline_s
            try:
                self._begin(end)
                self._send(question.encode() + b"\n", end)
                answer = self._receive(end)
            except SlurmError:
                # What it would still answer is not the answer to the next question.
                self._end()
                raise
        if "refused" in answer:
            subject = arguments.get("name", arguments.get("job_id", ""))
            raise SlurmError(f"pyslurm: {' '.join(filter(None, [call, str(subject)]))} failed: {answer['refused']}")
        if "value" not in answer:
            raise PyslurmUnusableError(f"pyslurm is not as its documentation says: {call}: {answer.get('fault')}")
        return answer["value"]

    def close(self) -> None:
        """End the process, if there is one."""
        with self._lock:
            self._end()

    def _begin(self, end: float) -> None:
        if self._process is not None and time.monotonic() - self._began > _CHILD_LIFE_S:
            self._end()
        if self._process is not None:
            return
        self._began = time.monotonic()
        try:
            self._process = subprocess.Popen(
                self._argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, start_new_session=True
            )
        except OSError as error:
            raise PyslurmUnusableError(f"pyslurm's process cannot be started: {error}") from error
        assert self._process.stdin is not None
        os.set_blocking(self._process.stdin.fileno(), False)
        try:
            self._receive(end)
        except _EndedError as error:
            raise PyslurmUnusableError(f"{error}, before it was asked anything") from error

    def _end(self) -> None:
        process, self._process = self._process, None
        self._buffer.clear()
        if process is None:
            return
        process.kill()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        # A process in an uninterruptible sleep outlives SIGKILL: do not wait for it for ever.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1.0)

    def _send(self, data: bytes, end: float) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        pipe = self._process.stdin.fileno()
        while data:
            self._wait(pipe, select.POLLOUT, end)
            try:
                data = data[os.write(pipe, data[:65536]) :]
            except BlockingIOError:
                continue
            except BrokenPipeError as error:
                raise self._ended() from error

    def _receive(self, end: float) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        while not self._buffer.endswith(b"\n"):
            self._wait(pipe, select.POLLIN, end)
            chunk = os.read(pipe, 1 << 20)
            if not chunk:
                raise self._ended()
            self._buffer += chunk
            if len(self._buffer) > _MOST_ANSWER:
                raise SlurmError(f"pyslurm's process answered with more than {_MOST_ANSWER >> 20} MB and was killed")
        line = bytes(self._buffer)
        self._buffer.clear()
        try:
            answer = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise SlurmError(f"pyslurm's process did not answer in JSON: {error}") from error
        if not isinstance(answer, dict):
            raise SlurmError("pyslurm's process answered with JSON that is no object")
        return answer

    def _wait(self, pipe: int, event: int, end: float) -> None:
        poll = select.poll()
        poll.register(pipe, event)
        if not poll.poll(max(0.0, end - time.monotonic()) * 1000):
            raise SlurmError("pyslurm did not answer in time and its process was killed")

    def _ended(self) -> _EndedError:
        assert self._process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        return _EndedError(
            f"pyslurm's process ended with exit code {self._process.returncode}; the log says what it said"
        )


class _EndedError(SlurmError):
    """The child is gone."""
