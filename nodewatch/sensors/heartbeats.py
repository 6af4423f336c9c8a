"""The heartbeats that the ranks of this node's jobs keep, one small file each (docs/hangs.md).

The files belong to users, and this is read by root: a directory or file that is a link, a pipe, a device, too long, or of
another owner than its directory is no heartbeat. What cannot be read is unknown, which is neither progress nor a hang.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from nodewatch.model.heartbeats import MOST_BYTES, MOST_JOBS, MOST_RANKS, Beat, JobBeats, parse_beat, rank_of

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: a pipe under the name of a rank must not be waited for.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_MOST_ENTRIES = 4 * MOST_RANKS
"""A user may make a million files in a directory of his own: so many are looked at."""
_WRITES_SEEN_TORN = 2
"""A file that is no heartbeat at so many looks in a row is none; at one it may have been read in the middle of a write."""


@dataclass(slots=True)
class _File:
    mark: tuple[int, int, int]
    """Inode, size and time of change: while they are the same the file is not read again."""
    beat: Beat | None = None
    changed_at: float = 0.0
    """Monotonic seconds at which step or phase were first seen as they are."""
    bad: int = 0
    """Looks in a row at which it was no heartbeat."""


class HeartbeatFiles:
    """The heartbeats below `directory` (`<directory>/<job>/heartbeats/<rank>`). `look` may block: see agent/progress.py."""

    def __init__(
        self, directory: Path, *, clock: Callable[[], float], mounts: Path = Path("/proc/self/mounts")
    ) -> None:
        """`clock` is the wall clock, by which files are dated."""
        self._directory = directory
        self._clock = clock
        self._mounts = mounts
        self._files: dict[tuple[int, int], _File] = {}
        self._owners: dict[int, int] = {}

    def owner(self, job_id: int) -> int | None:
        """The uid of the job's user, None where the job has no heartbeats."""
        return self._owners.get(job_id)

    def look(self, now: float) -> dict[int, JobBeats]:
        """The heartbeats as they are at `now` (monotonic seconds). Never raises."""
        seen: set[tuple[int, int]] = set()
        owners: dict[int, int] = {}
        jobs: dict[int, JobBeats] = {}
        foreign = self._mounted()
        for job_id, fd, uid in self._directories(foreign):
            try:
                jobs[job_id] = self._job(job_id, fd, uid, now, seen)
                owners[job_id] = uid
            finally:
                os.close(fd)
        for key in self._files.keys() - seen:
            del self._files[key]
        self._owners = owners
        return jobs

    def _mounted(self) -> frozenset[str]:
        """What is mounted below the directory: a user may mount a file system of his own (FUSE) on a directory that is his,
        and one that never answers would be waited for."""
        prefix = f"{self._directory}/"
        try:
            lines = self._mounts.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return frozenset()
        points = [words[1] for words in (line.split(" ") for line in lines) if len(words) > 2]
        return frozenset(point.removeprefix(prefix) for point in points if point.startswith(prefix))

    def _directories(self, foreign: frozenset[str]) -> Iterator[tuple[int, int, int]]:
        """(job, descriptor of its heartbeats, uid of its user), each to be closed by the caller."""
        try:
            top = os.open(self._directory, _DIRECTORY)
        except OSError:
            return
        try:
            with os.scandir(top) as entries:
                names = sorted(entry.name for entry in itertools.islice(entries, _MOST_ENTRIES))
            jobs = [name for name in names if rank_of(name) is not None and name != "0"][:MOST_JOBS]
            for name in jobs:
                if not any(point == name or point.startswith(f"{name}/") for point in foreign):
                    yield from self._heartbeats(top, name)
        finally:
            os.close(top)

    def _heartbeats(self, top: int, name: str) -> Iterator[tuple[int, int, int]]:
        with contextlib.suppress(OSError):
            job = os.open(name, _DIRECTORY, dir_fd=top)
            try:
                fd = os.open("heartbeats", _DIRECTORY, dir_fd=job)
            finally:
                os.close(job)
            yield int(name), fd, os.fstat(fd).st_uid

    def _job(self, job_id: int, fd: int, uid: int, now: float, seen: set[tuple[int, int]]) -> JobBeats:
        ranks: dict[int, Beat] = {}
        garbled = 0
        with contextlib.suppress(OSError), os.scandir(fd) as entries:
            named = ((rank_of(entry.name), entry) for entry in itertools.islice(entries, _MOST_ENTRIES))
            for rank, entry in sorted(((r, e) for r, e in named if r is not None), key=lambda pair: pair[0]):
                if len(ranks) >= MOST_RANKS:
                    garbled += 1
                    continue
                seen.add((job_id, rank))
                beat = self._rank(job_id, rank, entry.name, fd, uid, now)
                if beat is None:
                    garbled += 1
                else:
                    ranks[rank] = beat
        return JobBeats(ranks=ranks, garbled=garbled)

    def _rank(self, job_id: int, rank: int, name: str, directory: int, uid: int, now: float) -> Beat | None:
        known = self._files.get((job_id, rank))
        try:
            found = os.stat(name, dir_fd=directory, follow_symlinks=False)
            mark = (found.st_ino, found.st_size, found.st_mtime_ns)
            if known is not None and known.mark == mark and known.bad == 0:
                return _aged(known, now)
            beat = self._read(name, directory, uid, rank)
        except (OSError, ValueError):
            return self._not_one(job_id, rank, now)
        if known is None or known.beat is None:
            # What stood there before we came is as old as its file; a clock that was set makes that no less than nothing.
            known = _File(mark=mark, beat=beat, changed_at=now - max(0.0, self._clock() - found.st_mtime))
            self._files[job_id, rank] = known
        elif (beat.step, beat.phase) != (known.beat.step, known.beat.phase):
            known.changed_at = now
        known.mark, known.beat, known.bad = mark, beat, 0
        return _aged(known, now)

    def _read(self, name: str, directory: int, uid: int, rank: int) -> Beat:
        """Raises ValueError or OSError for what is no heartbeat."""
        fd = os.open(name, _FILE, dir_fd=directory)
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode) or found.st_uid != uid:
                raise ValueError("it is no regular file of the job's user")
            return parse_beat(os.read(fd, MOST_BYTES + 1), rank=rank)
        finally:
            os.close(fd)

    def _not_one(self, job_id: int, rank: int, now: float) -> Beat | None:
        known = self._files.get((job_id, rank))
        if known is None or known.beat is None:
            return None
        known.bad += 1
        if known.bad >= _WRITES_SEEN_TORN:
            del self._files[job_id, rank]
            return None
        return _aged(known, now)


def _aged(file: _File, now: float) -> Beat | None:
    beat = file.beat
    if beat is None:
        return None
    return dataclasses.replace(beat, still_s=max(0.0, now - file.changed_at))
