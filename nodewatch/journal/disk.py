"""The system calls that the journal makes, one a method, so that a test can end the world before and after each of them."""

from __future__ import annotations

import os
from pathlib import Path


class Disk:
    """The real file system. Every method may raise OSError."""

    def open(self, path: Path) -> int:
        """`path` for reading and writing, made when there is none."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)

    def write(self, fd: int, data: memoryview) -> int:
        """Some of `data`; how much, in bytes."""
        return os.write(fd, data)

    def sync(self, fd: int) -> None:
        """What was written to `fd` is on disk on return."""
        os.fdatasync(fd)

    def truncate(self, fd: int, size: int) -> None:
        """Cut the file to `size` bytes."""
        os.ftruncate(fd, size)

    def rename(self, old: Path, new: Path) -> None:
        """Give `old` the name `new`, in the place of what was called so."""
        old.rename(new)

    def remove(self, path: Path) -> None:
        """Delete `path`, if it is there."""
        path.unlink(missing_ok=True)

    def sync_directory(self, path: Path) -> None:
        """Names that were given and taken in `path` are on disk on return."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def write_whole(self, path: Path, data: bytes) -> None:
        """A new file with `data`, under its name only once it is whole and on disk."""
        temporary = path.with_name(path.name + ".tmp")
        fd = self.open(temporary)
        try:
            self.truncate(fd, 0)
            left = memoryview(data)
            while left:
                left = left[self.write(fd, left) :]
            self.sync(fd)
        finally:
            os.close(fd)
        self.rename(temporary, path)
        self.sync_directory(path.parent)
