"""What a file of a checkpoint must be: its size and checksums, computed while it is written.

A file of at most CHUNK_BYTES has a SHA-256. A larger one has the CRC-32 of each chunk, and the SHA-256 of that list: so a
file of a terabyte is verified by many threads at once, or by a sample of its chunks. CRC-32, because what has to be found is
what disks, networks and crashes do, and a SHA-256 of everything would halve the speed of a save where the file system
is faster than a core hashes (about 2 GB/s, against 7 GB/s). Standard library only.
"""

import hashlib
import os
import random
import stat
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from nodewatch_train.crc import combined

CHUNK_BYTES = 16 * 2**20
"""Bytes in a chunk. 10 TiB are 7 MB of checksums in the manifest, and one chunk is read in a blink of any file system."""
_READ_BYTES = 2**20
_THREADS = 8
"""Readers side by side: Lustre and NFS answer one reader at a fraction of their speed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """What one file must be: `size` in bytes, `sha256` in lower-case hexadecimal, and `chunks` of a large file.

    With chunks (CRC-32, eight hexadecimal digits each), `sha256` is that of the digits, joined by commas.
    """

    size: int
    sha256: str
    chunks: tuple[str, ...] = ()


class Digest:
    """Takes a file's bytes in order, and says its FileEntry."""

    def __init__(self) -> None:
        self.size = 0
        self._whole = hashlib.sha256()
        self._done: list[str] = []
        self._crc = 0
        self._since = 0
        self._room = CHUNK_BYTES

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """The next bytes. The interpreter's lock is free meanwhile, so several files are taken side by side."""
        view = memoryview(data).cast("B")
        self.size += len(view)
        while len(view):
            if not self._room:
                self._done.append(f"{self._crc:08x}")
                self._crc, self._room = 0, CHUNK_BYTES
            part = view[: self._room]
            before, self._crc = self._crc, zlib.crc32(part, self._crc)
            # Read once for both sums: they differ by what came before, carried on over these bytes.
            self._since = combined(self._since ^ before, self._crc, len(part))
            if not self._done:
                self._whole.update(part)  # the file may end within its first chunk
            self._room -= len(part)
            view = view[len(part) :]

    def mark(self) -> int:
        """The CRC-32 of all bytes since the last mark."""
        since, self._since = self._since, 0
        return since

    def entry(self) -> FileEntry:
        """What the bytes so far amount to."""
        if not self._done:
            return FileEntry(size=self.size, sha256=self._whole.hexdigest())
        chunks = (*self._done, f"{self._crc:08x}")
        return FileEntry(size=self.size, sha256=root_of(chunks), chunks=chunks)


def root_of(chunks: Iterable[str]) -> str:
    """The `sha256` of a file with chunks."""
    return hashlib.sha256(",".join(chunks).encode()).hexdigest()


def chunks_of(size: int) -> int:
    """How many chunks a file of `size` bytes has; 0 when it has its SHA-256 alone."""
    return -(-size // CHUNK_BYTES) if size > CHUNK_BYTES else 0


def digest_of(path: Path) -> FileEntry:
    """Read the whole file. Raises OSError."""
    digest = Digest()
    buffer = bytearray(_READ_BYTES)
    with open(path, "rb", buffering=0) as stream:
        while count := stream.readinto(buffer):
            digest.update(memoryview(buffer)[:count])
    return digest.entry()


def size_faults(directory: Path, files: Mapping[str, FileEntry]) -> list[str]:
    """One clause for each file that is missing, is no plain file or has another size, in order of name."""
    return [fault for name in sorted(files) if (fault := _size_fault(directory / name, files[name]))]


def content_faults(
    directory: Path, files: Mapping[str, FileEntry], *, share: float = 1.0, chance: random.Random | None = None
) -> list[str]:
    """One clause for each file whose bytes differ, in order of name.

    share: the part of the chunks (and of the small files) that is read, at random, at least one of each large file.
    """
    chance = chance or random.Random()
    work: list[tuple[str, int | None]] = []
    for name in sorted(files):
        count = len(files[name].chunks)
        if count:
            taken = range(count) if share >= 1 else sorted(chance.sample(range(count), max(1, round(share * count))))
            work += [(name, index) for index in taken]
        elif share >= 1 or chance.random() < share or files[name].size < _READ_BYTES:
            work.append((name, None))
    found = _side_by_side(lambda item: _content_fault(directory, files, item), work)
    faults: dict[str, str] = {}
    for (name, _), fault in zip(work, found, strict=True):
        if fault:
            faults.setdefault(name, fault)
    return list(faults.values())


def _side_by_side(
    ask: Callable[[tuple[str, int | None]], str], work: Sequence[tuple[str, int | None]]
) -> Iterable[str]:
    if not work:
        return []
    # Hashing releases the interpreter's lock, and so does reading.
    with ThreadPoolExecutor(max_workers=min(_THREADS, len(work))) as pool:
        return list(pool.map(ask, work))


def _content_fault(directory: Path, files: Mapping[str, FileEntry], item: tuple[str, int | None]) -> str:
    name, index = item
    entry = files[name]
    try:
        if index is None:
            found = digest_of(directory / name).sha256
            return "" if found == entry.sha256 else f"{name} does not match its checksum"
        found = _chunk_digest(directory / name, index)
    except OSError as error:
        return f"{name} cannot be read ({error.strerror or error})"
    return "" if found == entry.chunks[index] else f"{name} does not match its checksum in chunk {index}"


def _chunk_digest(path: Path, index: int) -> str:
    crc = 0
    offset, end = index * CHUNK_BYTES, (index + 1) * CHUNK_BYTES
    buffer = bytearray(_READ_BYTES)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        while offset < end and (count := os.preadv(descriptor, [buffer], offset)):
            part = min(count, end - offset)
            crc = zlib.crc32(memoryview(buffer)[:part], crc)
            offset += part
    finally:
        os.close(descriptor)
    return f"{crc:08x}"


def _size_fault(path: Path, entry: FileEntry) -> str:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return f"{path.name} is missing"
    except OSError as error:
        return f"{path.name} cannot be read ({error.strerror or error})"
    if not stat.S_ISREG(status.st_mode):
        return f"{path.name} is not a plain file"
    if status.st_size != entry.size:
        return f"{path.name} has {status.st_size} bytes and should have {entry.size}"
    return ""
