"""The journal as a file of JSON lines, fsynced record by record.

A process killed at any byte leaves at most one torn line, the last; it announced nothing that was done, since an action is
begun only after its line was synced, so it is dropped with a word. A torn line anywhere else means that something else wrote
to the file or the disk lost data: that is an error which names the line, never skipped in silence.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nodewatch.errors import JournalError
from nodewatch.model.records import Record

_log = logging.getLogger(__name__)


def read(path: Path) -> Iterator[Record]:
    """The records in `path` in order; none when there is no file. A torn last line is left out.

    Raises JournalError naming file and line for anything else that is no record.
    """
    try:
        with path.open("rb") as stream:
            lines = stream.read().split(b"\n")
    except FileNotFoundError:
        return
    except OSError as error:
        raise JournalError(f"{path} cannot be read: {error}") from error
    # A complete file ends with a newline, hence with an empty last piece.
    complete, tail = lines[:-1], lines[-1]
    if tail:
        _log.warning("%s: the last line is torn and was dropped (%d bytes)", path, len(tail))
    expected: int | None = None
    for index, line in enumerate(complete, start=1):
        try:
            record = Record.from_json(json.loads(line))
            if expected is not None and record.number != expected:
                raise ValueError(f"its number is {record.number} where {expected} follows: lines were lost")
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise JournalError(
                f"{path}: line {index} is no journal record ({_what(error)}): move the file away to start anew, or restore it"
            ) from error
        expected = record.number + 1
        yield record


def _what(error: Exception) -> str:
    # A KeyError's own text is the bare key.
    return f"it has no {error}" if isinstance(error, KeyError) else str(error)


class Journal:
    """The open journal of the one active controller.

    Opening takes a lock on the file: a second controller on the same journal is refused. `append` returns only after the
    record is on disk.
    """

    def __init__(self, path: Path) -> None:
        """Open `path` for appending, making it and repairing a torn last line. Raises JournalError."""
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise JournalError(f"{path} cannot be opened: {error}") from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._fd)
            raise JournalError(f"{path} is in use by another controller: only one may be active") from error
        self._number = 0
        self._records: list[Record] = []
        try:
            for record in read(path):
                self._number = record.number
                self._records.append(record)
            self._drop_torn_tail()
        except JournalError:
            os.close(self._fd)
            raise

    def take_past(self) -> list[Record]:
        """The records found at opening, handed over once so that they are not kept twice."""
        past, self._records = self._records, []
        return past

    def append(self, at: float, kind: str, data: Mapping[str, Any]) -> Record:
        """Write one record through to the disk and return it.

        Raises JournalError when it could not be written whole, a full disk for one; the file then ends as before.
        """
        record = Record(number=self._number + 1, at=at, kind=kind, data=data)
        line = json.dumps(record.to_json(), separators=(",", ":"), default=str).encode() + b"\n"
        end = os.lseek(self._fd, 0, os.SEEK_END)
        try:
            view = memoryview(line)
            while view:
                view = view[os.write(self._fd, view) :]
            os.fdatasync(self._fd)
        except OSError as error:
            # A half-written line in the middle would make the whole journal unreadable at the next start.
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, end)
            raise JournalError(f"{self._path} cannot be written: {error}") from error
        self._number += 1
        return record

    def close(self) -> None:
        """Give the file and its lock back."""
        os.close(self._fd)

    def _drop_torn_tail(self) -> None:
        size = os.lseek(self._fd, 0, os.SEEK_END)
        keep = size
        while keep > 0 and os.pread(self._fd, 1, keep - 1) != b"\n":
            keep -= 1
        if keep != size:
            os.ftruncate(self._fd, keep)
            os.fdatasync(self._fd)
