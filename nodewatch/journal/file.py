"""The journal of the one active controller: JSON lines, fsynced record by record, in files that begin from snapshots.

A process killed at any byte leaves at most one torn line, the last; it announced nothing that was done, since an action is
begun only after its line was synced, so it is dropped with a word. A torn line anywhere else means that something else wrote
to the file or the disk lost data: that is an error which names the line, never skipped in silence.

A full file is put aside in steps, each of which leaves a whole journal behind when it is the last one: the snapshot is
written and synced, the next file is made, the full one gets its number as a name, the next one gets its name.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nodewatch.errors import JournalError
from nodewatch.journal import pieces
from nodewatch.journal.disk import Disk
from nodewatch.journal.pieces import read
from nodewatch.model.ledger import Ledger
from nodewatch.model.records import Record
from nodewatch.policy.draft import Draft
from nodewatch.policy.fold import fold_into

_log = logging.getLogger(__name__)
_RECENT = 20000
"""So many of the last records are handed over at the start: what was reported twice is told by them."""
_RETRY_BYTES = 1 << 20

__all__ = ["Journal", "read"]


def _may_write() -> None:
    """The guard of a journal that nobody contends for."""


class Journal:
    """Opening takes a lock beside the file: a second controller on the same journal is refused.

    `append` returns only after the record is on disk.
    """

    def __init__(
        self,
        path: Path,
        *,
        rotate_bytes: int = 64 << 20,
        keep_days: float = 400.0,
        guard: Callable[[], None] = _may_write,
        takes_over: bool = False,
        disk: Disk | None = None,
        in_background: bool = True,
    ) -> None:
        """Open `path` for appending, making it and repairing a torn last line. Raises JournalError.

        `guard` raises JournalError when this process may write no longer. `takes_over` says that the one who held the
        journal lost it: its lock is not waited for, and its file is put aside, so that a late line of it does no harm.
        Old files are compressed and removed on a thread, or before the call returns when not `in_background`.
        """
        self._path = path
        self._rotate_bytes = rotate_bytes
        self._keep_days = keep_days
        self._guard = guard
        self._disk = disk or Disk()
        self._in_background = in_background
        self._tidying: threading.Thread | None = None
        self._number = 0
        self._first: int | None = None
        self._fd = -1
        self._lock = _locked(path, must=not takes_over)
        try:
            self._fd = self._disk.open(path)
            self._ledger, self._recent = self._recall()
            self._drop_torn_tail()
            self._size = os.lseek(self._fd, 0, os.SEEK_END)
            self._first = next((record.number for record in read(path)), None)
            if takes_over and self._size:
                self._rotate(self._ledger)
        except OSError as error:
            self.close()
            raise JournalError(f"{path} cannot be opened: {error}") from error
        except BaseException:
            self.close()
            raise
        self._rotate_at = rotate_bytes
        self._tidy_later()

    @property
    def number(self) -> int:
        """The number of the last record, 0 before the first."""
        return self._number

    @property
    def is_full(self) -> bool:
        """Whether `keep` would begin a new file."""
        return self._size >= self._rotate_at

    def take_past(self) -> list[Record]:
        """The last records found at opening, handed over once so that they are not kept twice."""
        past, self._recent = self._recent, []
        return past

    def take_ledger(self) -> Ledger:
        """What all records found at opening amount to, handed over once."""
        ledger, self._ledger = self._ledger, Ledger()
        return ledger

    def append(self, at: float, kind: str, data: Mapping[str, Any]) -> Record:
        """Write one record through to the disk and return it.

        Raises JournalError when it could not be written whole, a full disk for one; the file then ends as before.
        """
        self._guard()
        record = Record(number=self._number + 1, at=at, kind=kind, data=data)
        line = json.dumps(record.to_json(), separators=(",", ":"), default=str).encode() + b"\n"
        end = os.lseek(self._fd, 0, os.SEEK_END)
        try:
            view = memoryview(line)
            while view:
                view = view[self._disk.write(self._fd, view) :]
            self._disk.sync(self._fd)
        except OSError as error:
            # A half-written line in the middle would make the whole journal unreadable at the next start.
            with contextlib.suppress(OSError):
                self._disk.truncate(self._fd, end)
            raise JournalError(f"{self._path} cannot be written: {error}") from error
        self._number += 1
        self._first = self._first or self._number
        self._size = end + len(line)
        return record

    def keep(self, ledger: Ledger) -> None:
        """To be called after a record with what all of them amount to: a full file is put aside and the next one begun.

        That this fails is logged and tried again later: the journal goes on in the file that it has.
        """
        if not self.is_full:
            return
        try:
            self._guard()
            self._rotate(ledger)
        except (OSError, JournalError) as error:
            _log.warning("%s is full and cannot be put aside, it grows on: %s", self._path, error)
            self._rotate_at = self._size + _RETRY_BYTES
            return
        self._rotate_at = self._rotate_bytes
        self._tidy_later()

    def close(self) -> None:
        """Give the file and its lock back."""
        if self._tidying is not None:
            self._tidying.join()
            self._tidying = None
        for fd in (self._fd, self._lock):
            if fd >= 0:
                os.close(fd)
        self._fd = self._lock = -1

    def _recall(self) -> tuple[Ledger, list[Record]]:
        """The newest good snapshot and the records after it."""
        path = self._path
        for left in path.parent.glob(f"{path.stem}*.tmp"):
            self._disk.remove(left)
        self._disk.remove(_next_name(path))
        start = _newest_snapshot(path)
        draft = Draft(Ledger() if start is None else start.ledger)
        self._number = 0 if start is None else start.number
        recent: deque[Record] = deque(maxlen=_RECENT)
        expected = None if start is None else start.number + 1
        for record in pieces.read_all(path, after=self._number):
            if expected is not None and record.number != expected:
                raise JournalError(
                    f"{path}: record {expected} is missing, the next is {record.number}: restore the file that holds it"
                )
            expected = record.number + 1
            try:
                fold_into(draft, record)
            except (KeyError, ValueError, TypeError, AttributeError) as error:
                raise JournalError(
                    f"journal record {record.number} ({record.kind}) cannot be understood ({error!r}): "
                    "move the journal away to start anew, or restore it"
                ) from error
            recent.append(record)
        if recent:
            self._number = recent[-1].number
        if start is not None and len(recent) < _RECENT:
            return draft.ledger(), pieces.last(path, _RECENT)
        return draft.ledger(), list(recent)

    def _rotate(self, ledger: Ledger) -> None:
        path, disk = self._path, self._disk
        first = self._first or self._number + 1
        disk.write_whole(pieces.snapshot_name(path, self._number + 1), pieces.packed(ledger, self._number, time.time()))
        new = _next_name(path)
        fd = disk.open(new)
        old = pieces.old_name(path, first)
        try:
            disk.truncate(fd, 0)
            disk.rename(path, old)
            try:
                disk.rename(new, path)
            except OSError:
                disk.rename(old, path)
                raise
        except OSError:
            os.close(fd)
            raise
        os.close(self._fd)
        self._fd, self._size, self._first = fd, 0, None
        disk.sync_directory(path.parent)

    def _tidy_later(self) -> None:
        # Compressing takes a second or two, for which no agent and no job has to wait.
        if not self._in_background:
            self._tidy()
            return
        if self._tidying is not None:
            self._tidying.join()
        self._tidying = threading.Thread(target=self._tidy, daemon=True)
        self._tidying.start()

    def _tidy(self) -> None:
        try:
            pieces.tidy(self._path, keep_days=self._keep_days, now=time.time(), disk=self._disk)
        except JournalError as error:
            _log.warning("%s", error)

    def _drop_torn_tail(self) -> None:
        size = os.lseek(self._fd, 0, os.SEEK_END)
        keep = size
        while keep > 0 and os.pread(self._fd, 1, keep - 1) != b"\n":
            keep -= 1
        if keep != size:
            self._disk.truncate(self._fd, keep)
            self._disk.sync(self._fd)


def _next_name(path: Path) -> Path:
    return path.with_name(path.name + ".new")


def _newest_snapshot(path: Path) -> pieces.Snapshot | None:
    """The newest snapshot that can be read; None where the whole journal is there and has to be read for want of one."""
    reaches_back = next((piece.first in (None, 1) for piece in pieces.pieces(path)), True)
    outdated: pieces.Snapshot | None = None
    tried: list[str] = []
    for _, name in pieces.snapshot_names(path):
        try:
            snapshot = pieces.load_snapshot(name)
        except JournalError as error:
            _log.warning("%s: the one before it is taken", error)
            tried.append(name.name)
            continue
        if snapshot.is_current:
            return snapshot
        outdated = outdated or snapshot
    if reaches_back:
        if outdated is not None:
            _log.info("%s is of a release that remembers other things: the whole journal is read", outdated.path)
        return None
    if outdated is not None:
        _log.warning("%s is of a release that remembers other things, and older records are gone", outdated.path)
        return outdated
    raise JournalError(
        f"{path}: its first records are gone and no snapshot can be read ({', '.join(tried) or 'there is none'}): "
        "restore one, or move the journal away to start anew"
    )


def _locked(path: Path, *, must: bool) -> int:
    # A file of its own: the journal's is renamed when it is full, and a lock goes with the file and not with the name.
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise JournalError(f"{path} cannot be opened: {error}") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if must:
            os.close(fd)
            raise JournalError(f"{path} is in use by another controller: only one may be active") from error
    return fd
