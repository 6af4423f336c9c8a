"""Writes, syncs and reads back a file in the directory that its first argument names; the second is its size in bytes.

Run as a program by a deep diagnostic; the standard library only, no package: it starts with `-I -S`. Prints one JSON object and
ends with status 0, whatever it found; the file has no name, so nothing of it stays behind, however it ends.
"""

from __future__ import annotations

import contextlib
import errno
import json
import mmap
import os
import sys
import time
from typing import Any

_CHUNK = 1 << 20
_BLOCK = 4096
_SPARE = 1 << 28
"""Left free on the file system beside the file: a full one hurts whoever else writes there."""


def probe(directory: str, size: int) -> dict[str, Any]:
    """What happened: see DiskProbe in model/stress_samples.py for the words."""
    said: dict[str, Any] = {"path": directory, "size": 0, "wrong_blocks": 0, "is_direct": False}
    step = "open"
    fd = -1
    try:
        room = os.statvfs(directory)
        if room.f_bavail * room.f_frsize < size + _SPARE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fd, reader, said["is_direct"] = _open(directory)
        chunk = mmap.mmap(-1, _CHUNK)
        seed = os.urandom(_CHUNK)
        step = "write"
        began = time.monotonic()
        for at in range(0, size, _CHUNK):
            chunk[:] = _content(seed, at)
            _write(fd, chunk)
            said["size"] = at + _CHUNK
        step = "sync"
        os.fsync(fd)
        said["write_mb_per_s"] = _speed(said["size"], began)
        if not said["is_direct"]:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        step = "read"
        began = time.monotonic()
        os.lseek(reader, 0, os.SEEK_SET)
        for at in range(0, said["size"], _CHUNK):
            _compare(said, at, _read(reader, chunk), _content(seed, at))
        said["read_mb_per_s"] = _speed(said["size"], began)
    except OSError as error:
        said.update(failed=step, error=errno.errorcode.get(error.errno or 0, "unknown"), said=error.strerror or "")
    finally:
        if fd >= 0:
            os.close(fd)
    return said


def _open(directory: str) -> tuple[int, int, bool]:
    """The file twice: to write, and to read past the page cache where the file system allows that (not tmpfs)."""
    path = os.path.join(directory, f".nodewatch-disk-{os.getpid()}")  # noqa: PTH118
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
    try:
        with contextlib.suppress(OSError):
            fd = os.open(path, flags | os.O_DIRECT, 0o600)
            return fd, fd, True
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)  # noqa: PTH108
        fd = os.open(path, flags, 0o600)
        return fd, fd, False
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)  # noqa: PTH108


def _content(seed: bytes, at: int) -> bytes:
    """A megabyte that no other place of the file has: a block that was written elsewhere is found out."""
    shift = (at // _CHUNK * 61) % _CHUNK
    return at.to_bytes(8, "big") + (seed[shift:] + seed[:shift])[8:]


def _write(fd: int, chunk: mmap.mmap) -> None:
    if os.write(fd, chunk) != _CHUNK:
        raise OSError(errno.EIO, "less was written than was given")


def _read(fd: int, chunk: mmap.mmap) -> bytes:
    # Zeroed first: what a short read leaves must not pass for what was written before.
    chunk[:] = bytes(_CHUNK)
    if os.readv(fd, [chunk]) != _CHUNK:
        raise OSError(errno.EIO, "less could be read than was written")
    return chunk[:]


def _compare(said: dict[str, Any], at: int, got: bytes, wanted: bytes) -> None:
    if got == wanted:
        return
    for offset in range(0, _CHUNK, _BLOCK):
        if got[offset : offset + _BLOCK] != wanted[offset : offset + _BLOCK]:
            said["wrong_blocks"] += 1
            said.setdefault("first_wrong", at + offset)


def _speed(size: int, began: float) -> float:
    return round(size / 1e6 / max(time.monotonic() - began, 1e-6), 1)


if __name__ == "__main__":
    print(json.dumps(probe(sys.argv[1], int(sys.argv[2]))))
