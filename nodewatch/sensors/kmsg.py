"""The kernel log: /dev/kmsg, or a FIFO or a regular file that carries records in its format.

A record is `priority,sequence,microseconds,flags;text`, then lines that begin with a space and belong to it
(Documentation/ABI/testing/dev-kmsg). A record is handed out once: where the log goes on after a restart of the agent is kept
by boot id and sequence for the device, so that an old line does not put a repaired node out again, and one that was written
while the agent was down is not missed; by offset for a regular file. What was written into a FIFO without a reader is gone.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nodewatch.errors import SensorError
from nodewatch.model.samples import KmsgRecord, KmsgSample

_HEADER = re.compile(r"(\d{1,10}),(\d{1,20}),(\d{1,20}),[^;]*;(.*)", re.DOTALL | re.ASCII)
_ESCAPE = re.compile(r"\\x([0-9a-fA-F]{2})")
_MAX_LINE = 65536
_RECORD = 8192
"""The kernel refuses a read that is smaller than the record (CONSOLE_EXT_LOG_MAX is 8192)."""
_RECENT = 200
"""Records that go along as what came before: the lines of one GPU's fault stand within a few dozen of each other."""
_MAX_BATCH = 2000
"""Records in one sample: a storm in the log must leave time for the hooks between two samples."""


def parse_record(text: str) -> KmsgRecord | None:
    """The record that one line in the device's format holds, or None when it is none. Never raises."""
    match = _HEADER.fullmatch(text)
    if match is None:
        return None
    prefix = int(match[1])
    return KmsgRecord(
        text=_ESCAPE.sub(lambda hexed: chr(int(hexed[1], 16)), match[4]),
        sequence=int(match[2]),
        since_boot_us=int(match[3]),
        priority=prefix & 7,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Up to where the log was handed out: `sequence` for the device, `inode` and `offset` for a regular file."""

    boot_id: str
    sequence: int | None = None
    inode: int | None = None
    offset: int = 0

    def to_json(self) -> dict[str, Any]:
        """The form that is kept in the agent's state file."""
        return {"boot_id": self.boot_id, "sequence": self.sequence, "inode": self.inode, "offset": self.offset}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Position:
        """The inverse of `to_json`. Raises ValueError, KeyError or TypeError when `data` is not one."""
        sequence, inode = data["sequence"], data["inode"]
        return cls(
            boot_id=str(data["boot_id"]),
            sequence=None if sequence is None else int(sequence),
            inode=None if inode is None else int(inode),
            offset=int(data["offset"]),
        )


class KernelLog:
    """A reader of one kernel-log source that never blocks. Garbage is counted in `garbled`, lost records in `overruns`."""

    def __init__(
        self,
        path: Path,
        *,
        boot_id: str,
        position: Position | None = None,
        lookback_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`lookback_s`: how old a record of the device may be when no position of this boot is known; None: any age.

        `clock` is the kernel log's (seconds of CLOCK_MONOTONIC).
        """
        self._lookback_s = lookback_s
        self._clock = clock
        self.garbled = 0
        self.overruns = 0
        self._path = path
        # A position of another boot is a number of another log: sequences begin again at 0.
        fits = position is not None and position.boot_id == boot_id
        self._position = position if fits and position is not None else Position(boot_id=boot_id)
        self._fd: int | None = None
        self._kind = 0
        self._identity = (0, 0)
        self._partial = bytearray()
        self._skipping = False
        self._recent: deque[KmsgRecord] = deque(maxlen=_RECENT)

    @property
    def position(self) -> Position:
        """Up to where records were handed out."""
        return self._position

    @property
    def is_open(self) -> bool:
        """Whether the source can be read at the moment."""
        return self._fd is not None

    def fileno(self) -> int | None:
        """A descriptor that becomes readable with the next record; None for a regular file, which must be read at times."""
        return None if self._fd is None or stat.S_ISREG(self._kind) else self._fd

    def open(self) -> None:
        """Open the source. Raises SensorError with one sentence when that is impossible."""
        self.close()
        try:
            self._kind = self._path.stat().st_mode
            # O_RDWR on a FIFO: with the agent as a writer too, the last other writer's end is no end of file, which would
            # make the descriptor readable for ever and the agent spin.
            mode = os.O_RDWR if stat.S_ISFIFO(self._kind) else os.O_RDONLY
            self._fd = os.open(self._path, mode | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise SensorError(
                f"the kernel log {self._path} cannot be opened ({error.strerror}):"
                " set kmsg in agent.toml to the source, and run the agent as root"
            ) from error
        status = os.fstat(self._fd)
        self._identity = (status.st_dev, status.st_ino)
        if stat.S_ISREG(self._kind):
            same = self._position.inode == status.st_ino and self._position.offset <= status.st_size
            offset = self._position.offset if same else 0
            self._position = Position(boot_id=self._position.boot_id, inode=status.st_ino, offset=offset)
            os.lseek(self._fd, offset, os.SEEK_SET)

    def close(self) -> None:
        """Close the source; the position is kept."""
        if self._fd is not None:
            os.close(self._fd)
        self._fd = None
        self._partial.clear()
        self._skipping = False

    def reopen_if_replaced(self) -> None:
        """Open the path again when another file stands there now, or it grew shorter. Raises SensorError like `open`."""
        try:
            status = self._path.stat()
        except OSError:
            status = None
        if self._fd is None or status is None or (status.st_dev, status.st_ino) != self._identity:
            is_other = True
        else:
            is_other = stat.S_ISREG(self._kind) and status.st_size < self._position.offset + len(self._partial)
        if is_other:
            self.open()

    def read(self) -> KmsgSample:
        """All records that are there now, up to 2000. Raises SensorError when the source fails; it is closed then."""
        if self._fd is None:
            self.open()
        garbled_before = self.garbled
        records = self._read_device() if stat.S_ISCHR(self._kind) else self._read_stream()
        recent = tuple(self._recent)
        self._recent.extend(records)
        return KmsgSample(records=tuple(records), garbled=self.garbled - garbled_before, recent=recent)

    def _read_device(self) -> list[KmsgRecord]:
        # One read is one record with its continuation lines.
        records: list[KmsgRecord] = []
        oldest_us = self._oldest_us()
        while len(records) < _MAX_BATCH:
            chunk = self._read_some(_RECORD)
            if chunk is None:
                break
            record = self._parse(chunk.split(b"\n", 1)[0])
            if record is None or record.sequence is None:
                continue
            seen = self._position.sequence
            if seen is not None and record.sequence <= seen:
                continue
            self._position = Position(boot_id=self._position.boot_id, sequence=record.sequence)
            if record.since_boot_us is None or record.since_boot_us >= oldest_us:
                records.append(record)
        return records

    def _oldest_us(self) -> float:
        # An agent that is installed on a machine that has run for weeks finds faults in the ring that were repaired since.
        if self._lookback_s is None or self._position.sequence is not None:
            return 0.0
        return (self._clock() - self._lookback_s) * 1e6

    def _read_stream(self) -> list[KmsgRecord]:
        records: list[KmsgRecord] = []
        while len(records) < _MAX_BATCH:
            chunk = self._read_some(16384)
            if not chunk:
                break
            self._partial.extend(chunk)
            records.extend(self._split())
        return records

    def _split(self) -> Iterable[KmsgRecord]:
        *lines, rest = bytes(self._partial).split(b"\n")
        consumed = len(self._partial) - len(rest)
        self._partial[:] = rest
        if self._position.inode is not None:
            position = self._position
            self._position = Position(boot_id=position.boot_id, inode=position.inode, offset=position.offset + consumed)
        for line in lines:
            if self._skipping:
                self._skipping = False
                continue
            # A line that begins with a space continues the record before it (its device and subsystem).
            if line.strip() and not line.startswith(b" "):
                record = self._parse(line)
                if record is not None:
                    yield record
        if len(self._partial) > _MAX_LINE:
            # A source without line ends would otherwise grow in memory for ever.
            if self._position.inode is not None:
                position = self._position
                self._position = Position(
                    boot_id=position.boot_id, inode=position.inode, offset=position.offset + len(self._partial)
                )
            self._partial.clear()
            if not self._skipping:
                self.garbled += 1
            self._skipping = True

    def _read_some(self, size: int) -> bytes | None:
        assert self._fd is not None
        while True:
            try:
                return os.read(self._fd, size)
            except BlockingIOError:
                return None
            except OSError as error:
                if error.errno == errno.EPIPE:
                    # The ring went round before we read: the next read gives the oldest record that is left.
                    self.overruns += 1
                    continue
                if error.errno == errno.EINVAL:
                    # One record longer than the kernel's own bound is skipped by the kernel: count it, go on.
                    self.garbled += 1
                    return None
                self.close()
                raise SensorError(
                    f"the kernel log {self._path} cannot be read ({error.strerror}): look at it with dmesg"
                ) from error

    def _parse(self, line: bytes) -> KmsgRecord | None:
        record = parse_record(line.decode("utf-8", "replace"))
        if record is None:
            self.garbled += 1
        return record
