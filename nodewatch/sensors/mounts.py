"""Shared file systems: mounted or not by /proc/self/mountinfo, which cannot hang, then a child process asks for the size.

A client of a parallel file system waits for its server as long as it takes, in a wait that no signal ends. So the question is
put by a child that is left behind when it hangs: it is remembered and never waited for, and no second one is started for the
same file system meanwhile, or a week of hanging would fill the process table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nodewatch.model.samples import MountProbe, MountSample
from nodewatch.sensors.child import Child
from nodewatch.sensors.reading import Reading

_OCTAL = re.compile(r"\\([0-7]{3})")


def parse_mountinfo(text: str) -> Mapping[str, str]:
    """File system type by mount point; the last mount on a point wins, as it hides the others. Skips what it cannot read."""
    types: dict[str, str] = {}
    for line in text.splitlines():
        before, separator, after = line.partition(" - ")
        fields = before.split(" ")
        if separator and len(fields) >= 5:
            point = _OCTAL.sub(lambda octal: chr(int(octal[1], 8)), fields[4])
            types[point] = after.split(" ", 1)[0]
    return types


@dataclass(slots=True, kw_only=True)
class _Probe:
    path: str
    fs_type: str
    child: Child
    error: str | None = None
    seconds: float | None = None


class MountSensor:
    """Polled source of `MountSample` for the file systems that the node must have."""

    name = "mounts"
    reads = MountSample

    def __init__(
        self,
        paths: Sequence[str],
        *,
        deadline_s: float,
        mountinfo: Path = Path("/proc/self/mountinfo"),
        argv: Sequence[str] = ("stat", "-f", "-c", "%T", "--"),
    ) -> None:
        """`argv` is the command that asks a file system; its path is added at the end."""
        self._paths = tuple(paths)
        self._deadline_s = deadline_s
        self._mountinfo = mountinfo
        self._argv = tuple(argv)
        self._running: dict[str, _Probe] = {}
        self._done: dict[str, MountProbe] = {}
        self._started_at: float | None = None
        self._error: str | None = None

    def start(self, now: float) -> None:
        """Begin to ask every file system that is not being asked already."""
        if self._started_at is not None:
            return
        self._started_at = now
        self._done = {}
        self._error = None
        try:
            types = parse_mountinfo(self._mountinfo.read_text(encoding="utf-8", errors="replace"))
            for path in self._paths:
                self._ask(path, types, now)
        except OSError as error:
            self._error = f"the mounts cannot be read or asked ({error}): look at {self._mountinfo}"

    def filenos(self) -> tuple[int, ...]:
        """The output of each child that has not answered in this reading."""
        if self._started_at is None:
            return ()
        return tuple(probe.child.fileno() for path, probe in self._running.items() if path not in self._done)

    def due_at(self) -> float | None:
        """When the last of them is late."""
        if self._started_at is None:
            return None
        waiting = [p.child.started_at for path, p in self._running.items() if path not in self._done]
        return max(waiting) + self._deadline_s if waiting and self._error is None else 0.0

    def result(self, now: float) -> Reading | None:
        """The sample as soon as each file system answered or missed the deadline."""
        if self._started_at is None:
            return None
        for path, probe in list(self._running.items()):
            self._look(path, probe, now)
        if self._error is not None:
            self._started_at = None
            return Reading(error=self._error)
        if not self._paths:
            self._started_at = None
            return Reading(not_applicable="no shared file system is configured")
        if len(self._done) < len(self._paths):
            return None
        self._started_at = None
        return Reading(sample=MountSample(mounts=tuple(self._done[path] for path in self._paths)))

    def close(self) -> None:
        """Send SIGKILL to the children that are left; one that cannot be killed yet is left to the kernel."""
        for probe in self._running.values():
            probe.child.kill()
        self._running.clear()

    def _ask(self, path: str, types: Mapping[str, str], now: float) -> None:
        fs_type = types.get(str(Path(path)))
        if fs_type is None:
            self._done[path] = MountProbe(path=path, is_mounted=False, answered=False, seconds=0.0)
            return
        if path not in self._running:
            child = Child([*self._argv, path], now=now)
            self._running[path] = _Probe(path=path, fs_type=fs_type, child=child)

    def _look(self, path: str, probe: _Probe, now: float) -> None:
        ended = probe.child.poll()
        seconds = now - probe.child.started_at
        if ended is None:
            if seconds >= self._deadline_s and path not in self._done:
                self._done[path] = MountProbe(
                    path=path, is_mounted=True, answered=False, seconds=seconds, fs_type=probe.fs_type
                )
            return
        del self._running[path]
        if path in self._done:
            # It was late and this reading already says so; the next one starts afresh.
            return
        error = None if ended.returncode == 0 else _sentence(ended.stderr, ended.returncode)
        self._done[path] = MountProbe(
            path=path, is_mounted=True, answered=True, seconds=seconds, fs_type=probe.fs_type, error=error
        )


def _sentence(stderr: str, returncode: int) -> str:
    lines = stderr.strip().splitlines()
    return lines[-1][:300] if lines else f"the probe ended with status {returncode}"
