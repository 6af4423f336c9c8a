"""The kernel-log feeds: carries the `kmsg` lines of each instance's state file into its FIFO."""

import os
import threading
import time
from contextlib import suppress
from pathlib import Path

from nodewatch.lab import hardware
from nodewatch.lab.layout import Layout

LOOK_EVERY_S = 0.1


class Feed:
    """A thread that follows the state files of the machines that were added."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._lock = threading.Lock()
        self._followed: dict[str, Follower] = {}
        threading.Thread(target=self._follow, name="kmsg-feed", daemon=True).start()

    def add(self, ident: str) -> None:
        with self._lock:
            if ident not in self._followed:
                self._followed[ident] = Follower(self._layout.machine(ident) / "instance")

    def drop(self, ident: str) -> None:
        with self._lock:
            follower = self._followed.pop(ident, None)
            if follower is not None:
                follower.close()

    def _follow(self) -> None:
        while True:
            with self._lock:
                for follower in self._followed.values():
                    follower.step()
            time.sleep(LOOK_EVERY_S)


class Follower:
    """One instance's state file, read from where it was left, and the FIFO held open so that no record is lost."""

    def __init__(self, instance: Path) -> None:
        self._file = instance / hardware.FILE_NAME
        self._offset = 0
        self._sequence = 1000
        # Opened for reading too: the records wait in the pipe while the agent is not there, as in the kernel's ring.
        self._pipe = os.open(instance / hardware.FEED_NAME, os.O_RDWR | os.O_NONBLOCK)

    def step(self) -> None:
        """Carry over what was appended since the last step."""
        try:
            size = self._file.stat().st_size
            if size <= self._offset:
                return
            with open(self._file, "rb") as file:
                file.seek(self._offset)
                fresh = file.read()
        except OSError:
            return
        whole, newline, _ = fresh.rpartition(b"\n")
        self._offset += len(whole) + len(newline)
        for line in whole.decode(errors="replace").splitlines():
            if line.startswith(("kmsg ", "kmsg-raw ")):
                self._write(hardware.record(line, self._sequence, self._clock_offset_s()))
                self._sequence += 1

    def _clock_offset_s(self) -> int:
        # Written anew at each boot of the machine.
        try:
            return int((self._file.parent.parent / "clock-offset").read_text())
        except (OSError, ValueError):
            return 0

    def close(self) -> None:
        os.close(self._pipe)

    def _write(self, record: bytes) -> None:
        # Full: like the kernel's ring the feed loses records rather than stop for a reader that is away.
        with suppress(BlockingIOError):
            os.write(self._pipe, record)
