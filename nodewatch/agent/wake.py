"""A pipe that ends the main loop's wait: other threads and signals write a byte into it."""

from __future__ import annotations

import contextlib
import os


class WakePipe:
    """The descriptors are non-blocking: a pipe full of bytes wakes as well as one."""

    def __init__(self) -> None:
        self.read_fd, self.write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def wake(self) -> None:
        """End the wait. May be called from any thread."""
        with contextlib.suppress(BlockingIOError):
            os.write(self.write_fd, b"\0")

    def clear(self) -> None:
        """Take out all bytes, before what they announce is looked at."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self.read_fd, 4096):
                pass
