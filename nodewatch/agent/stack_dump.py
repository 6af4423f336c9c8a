"""Where the ranks of a job that hangs are: their Python stacks by py-spy, and what the kernel says they wait for.

Asked for by the controller before it has a hung job ended, since afterwards nobody can look. py-spy runs as root and reads
another process's memory, and the process id is a user's word: it is believed for a process of the job's user that no other
job's cgroup holds. py-spy reads without stopping the process (--nonblocking), and without local variables, which are the
user's data.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nodewatch.agent.validation import Answers, Given
from nodewatch.model.heartbeats import Beat
from nodewatch.sensors.child import Child, Ended

_LOG = logging.getLogger(__name__)
COMMAND = ("py-spy", "dump", "--nonblocking", "--pid")
MOST_DUMPS = 16
"""Ranks of one node that are looked at: twice the GPUs of the largest EC2 instances with NVIDIA's."""
MOST_TEXT = 1800
"""Characters of one rank's stacks: so that all of them stay below the 32 KB that one event of evidence may have."""
_DUMP_DEADLINE_S = 5.0
"""py-spy takes well below a second for a process that can be read."""
_ALL_DEADLINE_S = 20.0

Ranks = Callable[[int], tuple[int, Mapping[int, Beat]] | None]
"""(uid of the job's user, ranks on this node) of a job."""


@dataclass(slots=True)
class _Work:
    key: str
    job_id: int
    uid: int
    left: list[Beat]
    until: float
    dumps: list[dict[str, Any]]
    rank: int = -1
    child: Child | None = None


class StackDumps:
    """One request at a time; each is answered once, and again when it comes again. `now` is monotonic seconds."""

    def __init__(
        self,
        ranks: Ranks,
        *,
        command: Sequence[str] = COMMAND,
        tell: Callable[[Mapping[str, Any]], str],
        is_told: Callable[[str], bool],
        proc: Path = Path("/proc"),
    ) -> None:
        """`command` gets the process id as its last word; empty: stacks are not read, and that is the answer."""
        self._ranks = ranks
        self._command = tuple(command)
        self._tell = tell
        self._is_told = is_told
        self._proc = proc
        self._answers = Answers()
        self._work: _Work | None = None

    def ask(self, key: str, job: object, now: float) -> None:
        """The controller asks for the stacks of `job`."""
        given = self._answers.given(key)
        if given is not None:
            if self._answers.may_repeat(key, now) and self._is_told(given.event_id):
                self._answer(key, given.content, now)
            return
        if self._work is not None:
            # The controller repeats what was not answered: the next one's turn comes.
            return
        job_id = int(job) if isinstance(job, int | str) and re.fullmatch(r"[0-9]{1,16}", str(job)) else 0
        known = self._ranks(job_id)
        if known is None:
            self._answer(key, _content(key, job_id, [], "this node has no heartbeats of the job"), now)
            return
        uid, beats = known
        # The ranks that are furthest behind first: there may be no time for all.
        left = sorted(beats.values(), key=lambda beat: (beat.step, beat.rank))[:MOST_DUMPS]
        self._work = _Work(key=key, job_id=job_id, uid=uid, left=left, until=now + _ALL_DEADLINE_S, dumps=[])

    def filenos(self) -> tuple[int, ...]:
        """The output of the command that runs."""
        work = self._work
        return () if work is None or work.child is None else work.child.filenos()

    def due_at(self) -> float | None:
        """When `step` must be called even if no descriptor became readable."""
        work = self._work
        if work is None:
            return None
        return 0.0 if work.child is None else min(work.until, work.child.started_at + _DUMP_DEADLINE_S)

    def step(self, now: float) -> None:
        """Go on with the request that is under way."""
        work = self._work
        if work is None:
            return
        if work.child is not None:
            ended = work.child.poll()
            if ended is None and now < min(work.until, work.child.started_at + _DUMP_DEADLINE_S):
                return
            if ended is None:
                work.child.kill()
            work.child = None
            work.dumps[-1] |= _said(ended, self._command[0])
        while work.left and work.child is None and now < work.until:
            self._begin(work, work.left.pop(0), now)
        if work.child is None:
            why = f"there was no time for {len(work.left)} more ranks" if work.left else ""
            self._work = None
            self._answer(work.key, _content(work.key, work.job_id, work.dumps, why), now)

    def close(self) -> None:
        """End the command that runs."""
        if self._work is not None and self._work.child is not None:
            self._work.child.kill()
        self._work = None

    def _begin(self, work: _Work, beat: Beat, now: float) -> None:
        dump: dict[str, Any] = {"rank": beat.rank, "step": beat.step}
        work.dumps.append(dump)
        if beat.pid is None:
            dump["said"] = "the heartbeat names no process"
            return
        dump["pid"] = beat.pid
        refusal = _refusal(self._proc / str(beat.pid), work.uid, work.job_id)
        if refusal is not None:
            dump["said"] = refusal
            return
        dump |= _of_the_kernel(self._proc / str(beat.pid))
        if not self._command:
            dump["said"] = "stack_dump is empty in agent.toml: no stacks were read"
            return
        try:
            work.child = Child((*self._command, str(beat.pid)), now=now, at_most=16 * MOST_TEXT)
        except OSError as error:
            dump["said"] = f"{self._command[0]} cannot be run ({error.strerror}): no stacks were read"

    def _answer(self, key: str, content: Mapping[str, Any], now: float) -> None:
        self._answers.keep(key, Given(content=content, event_id=self._tell(content), at=now))


def _content(key: str, job_id: int, dumps: Sequence[Mapping[str, Any]], said: str) -> dict[str, Any]:
    _LOG.info("stacks of job %d: %d ranks%s", job_id, len(dumps), f", {said}" if said else "")
    return {"key": key, "job": job_id, "dumps": list(dumps), "said": said}


def _refusal(process: Path, uid: int, job_id: int) -> str | None:
    """Why the process is not looked at; None where it is the job's.

    None of these files waits for the process's memory map, as its command line and environment do: reading those of a process
    that hangs in the kernel hangs as well.
    """
    try:
        owner = process.stat().st_uid
        groups = (process / "cgroup").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "the process is gone (or of another PID namespace than the node's)"
    jobs = set(re.findall(r"/job_([0-9]+)(?:/|$)", groups, re.MULTILINE))
    # Of root's processes most are no job's: there the cgroup must say so.
    if owner != uid or (jobs and str(job_id) not in jobs) or (uid == 0 and not jobs):
        return "the process that the heartbeat names is none of this job"
    return None


def _of_the_kernel(process: Path) -> dict[str, str]:
    """The process's state and what its main thread waits for in the kernel, as far as they can be read."""
    found: dict[str, str] = {}
    try:
        status = (process / "status").read_text(encoding="utf-8", errors="replace")
        state = re.search(r"^State:\s*(\S)", status, re.MULTILINE)
        if state is not None:
            found["state"] = state.group(1)
        wait = (process / "wchan").read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return found
    if wait not in ("", "0"):
        found["waits_in"] = wait[:80]
    return found


def _said(ended: Ended | None, program: str) -> dict[str, str]:
    if ended is None:
        return {"said": f"{program} did not end in time"}
    if ended.returncode != 0:
        # py-spy prints its error first and a backtrace of its own after it.
        lines = (ended.stderr.strip() or ended.stdout.strip()).splitlines()
        return {"said": f"{program}: {lines[0].strip()[:200] if lines else f'status {ended.returncode}'}"}
    return {"stacks": _main_first(ended.stdout)}


def _main_first(text: str) -> str:
    """The main thread's stack first, then the others, as much as there is room for."""
    blocks = re.split(r"\n(?=Thread )", text)
    threads = [block for block in blocks if block.startswith("Thread ")]
    threads.sort(key=lambda block: '"MainThread"' not in block.partition("\n")[0])
    return "\n".join(threads or blocks)[:MOST_TEXT]
