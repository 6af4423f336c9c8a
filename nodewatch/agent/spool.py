"""Events that the controller has not accepted yet, on disk, so that none is lost when the agent or the machine stops.

The file holds one JSON object a line: an event, a list of accepted ids, or the highest sequence number that was given. It is
written anew when most of it is history. A torn last line (kill -9, power) is dropped. When the disk is full events are kept
in memory, the spool says so, and the file is written as soon as it can be.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

_LOG = logging.getLogger(__name__)
_COMPACT_BYTES = 262_144


class Spool:
    """At-least-once storage of events, safe to use from two threads. Event ids are `<boot id>:<sequence>`."""

    def __init__(self, path: Path, *, boot_id: str, max_bytes: int, now: float) -> None:
        """Read what an earlier run left in `path`. Never raises for its content; `now` is seconds since the epoch."""
        self.dropped = 0
        self.error: str | None = None
        """Why events are in memory only; None while they are on disk."""
        self._path = path
        self._boot_id = boot_id
        self._max_bytes = max_bytes
        self._lock = threading.RLock()
        self._pending: dict[str, str] = {}
        self._bytes = 0
        self._file_bytes = 0
        self._fd: int | None = None
        # The clock is the floor: were the file lost within one boot, ids given twice would be dropped as known.
        self._sequence = max(self._load(), int(now * 1000))
        self._rewrite()

    @property
    def depth(self) -> int:
        """How many events wait to be accepted."""
        return len(self._pending)

    def append(self, kind: str, at: float, content: Mapping[str, Any]) -> str:
        """Keep one event and return its id. It is on disk when this returns, or `error` says why it is not."""
        with self._lock:
            self._sequence += 1
            event_id = f"{self._boot_id}:{self._sequence}"
            line = json.dumps({"id": event_id, "at": at, "kind": kind, **content}, separators=(",", ":"))
            self._pending[event_id] = line
            self._bytes += len(line)
            self._bound()
            self._write(f'{{"event":{line}}}\n', sync=True)
            return event_id

    def batch(self, *, max_events: int = 100, max_bytes: int = 262_144) -> list[dict[str, Any]]:
        """The oldest events that wait, at least one when there is any."""
        with self._lock:
            chosen: list[dict[str, Any]] = []
            size = 0
            for line in self._pending.values():
                if chosen and (len(chosen) >= max_events or size + len(line) > max_bytes):
                    break
                chosen.append(json.loads(line))
                size += len(line)
            return chosen

    def accept(self, ids: Iterable[str]) -> None:
        """The controller has these: they are not sent again. Ids that do not wait are ignored."""
        with self._lock:
            known = [event_id for event_id in ids if event_id in self._pending]
            for event_id in known:
                self._bytes -= len(self._pending.pop(event_id))
            if known:
                # Not synced: were it lost, the events would be sent twice, and the controller drops the second.
                self._write(json.dumps({"accepted": known}) + "\n", sync=False)

    def is_waiting(self, event_id: str) -> bool:
        """Whether the event was not accepted yet."""
        return event_id in self._pending

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._fd is not None:
                os.close(self._fd)
                self._fd = None

    def _load(self) -> int:
        try:
            lines = self._path.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return 0
        except OSError as error:
            _LOG.error("the spool %s cannot be read (%s): events of the last run may be lost", self._path, error)
            return 0
        highest = 0
        for number, line in enumerate(lines, start=1):
            try:
                highest = max(highest, self._replay(json.loads(line)))
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                last = " (torn at the last stop)" if number == len(lines) else ""
                _LOG.warning("line %d of the spool %s is no event and was dropped%s", number, self._path, last)
        return highest

    def _replay(self, entry: Mapping[str, Any]) -> int:
        if "accepted" in entry:
            for event_id in entry["accepted"]:
                line = self._pending.pop(event_id, None)
                self._bytes -= len(line) if line is not None else 0
            return 0
        if "sequence" in entry:
            return int(entry["sequence"])
        event = entry["event"]
        event_id = str(event["id"])
        sequence = int(event_id.rpartition(":")[2])
        line = json.dumps(event, separators=(",", ":"))
        self._bytes += len(line) - len(self._pending.get(event_id, ""))
        self._pending[event_id] = line
        return sequence

    def _bound(self) -> None:
        while self._bytes > self._max_bytes and len(self._pending) > 1:
            oldest = next(iter(self._pending))
            self._bytes -= len(self._pending.pop(oldest))
            self.dropped += 1
            if self.dropped == 1:
                _LOG.error(
                    "the spool %s is full and drops its oldest events: see why the controller does not take them",
                    self._path,
                )

    def _write(self, line: str, *, sync: bool) -> None:
        data = line.encode("utf-8")
        if self._fd is None or self._file_bytes + len(data) > self._bytes + _COMPACT_BYTES:
            self._rewrite()
            return
        try:
            written = os.write(self._fd, data)
            if written != len(data):
                raise OSError("the disk took part of a line")
            if sync:
                os.fdatasync(self._fd)
            self._file_bytes += len(data)
        except OSError as error:
            self._failed(error)

    def _rewrite(self) -> None:
        """Write everything that waits into a new file and put it in the place of the old one."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
        temporary = self._path.with_name(self._path.name + ".new")
        content = f'{{"sequence":{self._sequence}}}\n' + "".join(
            f'{{"event":{line}}}\n' for line in self._pending.values()
        )
        data = content.encode("utf-8")
        fd = -1
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            os.fdatasync(fd)
            temporary.replace(self._path)
        except OSError as error:
            if fd >= 0:
                os.close(fd)
                with contextlib.suppress(OSError):
                    temporary.unlink()
            self._failed(error)
            return
        self._fd = fd
        self._file_bytes = len(data)
        if self.error is not None:
            _LOG.warning("the spool %s is on disk again", self._path)
        self.error = None

    def _failed(self, error: OSError) -> None:
        # The old file stays as it is: a torn line at its end is dropped when it is read.
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
        sentence = f"the spool {self._path} cannot be written ({error}): events are in memory only, free the disk"
        if self.error is None:
            _LOG.error("%s", sentence)
        self.error = sentence
