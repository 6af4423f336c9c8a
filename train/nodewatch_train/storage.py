"""Writes a rank's share of a checkpoint in the format of torch.distributed.checkpoint, flushed and hashed on the way.

torch's own writer passes every tensor through a Python stream piece by piece, and the files would have to be read again
for their checksums. Here each of a few threads writes one file, and hashes the next piece while one is on its way to the disk.
"""

import ctypes
import errno
import fcntl
import io
import mmap
import os
import pickle
import struct
from collections import OrderedDict, deque
from concurrent.futures import Executor, ThreadPoolExecutor
from concurrent.futures import Future as Pending
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.filesystem import FileSystemWriter, _StorageInfo
from torch.distributed.checkpoint.metadata import MetadataIndex
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner, WriteItem, WriteItemType
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future

from nodewatch_train.digest import Digest, FileEntry
from nodewatch_train.staging import Staged

_MAX = 0xFFFFFFFF
_PIECE = 4 * 2**20
"""Bytes of one write, a multiple of every page size: small enough to be hashed while still in the cache, large enough for a
disk or a Lustre server to take it at full speed."""
_AHEAD = 2
"""Pieces of one file on their way to the disk at a time."""


class StagedPlanner(DefaultSavePlanner):
    """Plans with the live tensors, of which it reads the shapes alone, and writes their staged copies."""

    def __init__(self, staged: Staged) -> None:
        super().__init__()
        self._staged = staged

    def lookup_object(self, index: MetadataIndex) -> Any:
        value = self.state_dict[index.fqn]
        return self._staged.of(value) if isinstance(value, torch.Tensor) else value


class HashingWriter(FileSystemWriter):
    """Afterwards `entries` says what each file of this rank holds; all of them are on stable storage."""

    def __init__(self, path: Path, *, threads: int) -> None:
        super().__init__(path)
        self.entries: dict[str, FileEntry] = {}
        self._directory = path
        self._threads = threads

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        prefix = plan.storage_data.prefix
        buckets = [bucket for bucket in _spread(plan.items, self._threads) if bucket]
        named = {f"{prefix}{number}.distcp": bucket for number, bucket in enumerate(buckets)}
        results: list[WriteResult] = []
        with (
            ThreadPoolExecutor(max_workers=self._threads * _AHEAD, thread_name_prefix="checkpoint-write") as writer,
            ThreadPoolExecutor(max_workers=self._threads, thread_name_prefix="checkpoint-hash") as pool,
        ):
            running = {
                name: pool.submit(self._write_file, name, items, planner, writer) for name, items in named.items()
            }
            for name, future in running.items():
                written, self.entries[name] = future.result()
                results += written
        done: Future[list[WriteResult]] = Future()
        done.set_result(results)
        return done

    def _write_file(
        self, name: str, items: list[WriteItem], planner: SavePlanner, writer: Executor
    ) -> tuple[list[WriteResult], FileEntry]:
        results = []
        with HashedFile(self._directory / name, writer=writer) as out:
            for item in items:
                offset = out.digest.size
                data = planner.resolve_data(item)
                if isinstance(data, io.BytesIO):
                    out.write(data.getbuffer())
                else:
                    write_tensor(out, data.detach())
                length = out.digest.size - offset
                where = _StorageInfo(name, offset, length)
                results.append(WriteResult(index=item.index, size_in_bytes=length, storage_data=where))
            entry = out.flushed()
        return results, entry


class HashedFile:
    """A new file that is written from its beginning to its end, past the page cache where the file system allows it.

    What comes is copied into one of a few buffers, hashed there, and written by `writer` while the next one is filled: so the
    disk, the hashing and the copy go on at the same time. The kernel would copy it too, into its cache, and only an fsync
    in the end would wait for the disk. writer: where the writing is done; in the caller's thread without one.
    """

    def __init__(self, path: Path, *, writer: Executor | None = None) -> None:
        self.digest = Digest()
        self._writer = writer
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._direct = True
        try:
            self._descriptor = os.open(path, flags | os.O_DIRECT, 0o644)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            # A file system without direct writes. ext4 has made the file by then, older tmpfs has not.
            self._direct = False
            self._descriptor = os.open(path, flags & ~os.O_EXCL, 0o644)
        self._buffer: mmap.mmap | None = None
        self._filled = 0
        self._offset = 0
        self._running: deque[tuple[Pending[None], mmap.mmap]] = deque()

    def write(self, data: bytes | bytearray | memoryview) -> int:
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view):
            if self._buffer is None:
                self._buffer = self._next_buffer()
            buffer = self._buffer
            part = view[done : done + _PIECE - self._filled]
            _copy(buffer, self._filled, part)
            # The copy and not the original: what is hashed is what is written, whatever changes meanwhile.
            with memoryview(buffer) as copied:
                self.digest.update(copied[self._filled : self._filled + len(part)])
            self._filled += len(part)
            done += len(part)
            if self._filled == _PIECE:
                self._hand_over(buffer)
        return len(view)

    def flush(self) -> None:
        """Nothing is to be done: what is held back is written by `flushed`."""

    def flushed(self) -> FileEntry:
        """Wait until all is on stable storage, and say what it is."""
        while self._running:
            self._running.popleft()[0].result()
        if self._buffer is not None:
            self._no_longer_direct()  # the end of a file is no whole page
            self._put(self._buffer, self._filled, self._offset)
        os.fsync(self._descriptor)
        return self.digest.entry()

    def __enter__(self) -> "HashedFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            for running, _ in self._running:
                running.exception()  # it still reads its buffer and writes to the descriptor
        finally:
            os.close(self._descriptor)

    def _next_buffer(self) -> mmap.mmap:
        if len(self._running) < _AHEAD:
            return mmap.mmap(-1, _PIECE)  # begins on a page, which direct writes need
        running, buffer = self._running.popleft()
        running.result()
        return buffer

    def _hand_over(self, full: mmap.mmap) -> None:
        offset = self._offset
        self._offset += _PIECE
        self._filled = 0
        if self._writer is None:
            self._put(full, _PIECE, offset)
        else:
            self._running.append((self._writer.submit(self._put, full, _PIECE, offset), full))
            self._buffer = None

    def _put(self, buffer: mmap.mmap, count: int, offset: int) -> None:
        with memoryview(buffer) as view:
            done = 0
            while done < count:
                with view[done:count] as left:
                    try:
                        done += os.pwrite(self._descriptor, left, offset + done)
                    except OSError as error:
                        if error.errno != errno.EINVAL or not self._direct:
                            raise
                        self._no_longer_direct()  # it wants larger pieces than pages, or took an odd number of bytes

    def _no_longer_direct(self) -> None:
        if self._direct:
            flags = fcntl.fcntl(self._descriptor, fcntl.F_GETFL)
            fcntl.fcntl(self._descriptor, fcntl.F_SETFL, flags & ~os.O_DIRECT)
            self._direct = False


def _copy(into: mmap.mmap, offset: int, part: memoryview) -> None:
    if part.readonly or len(part) < 65536:
        into[offset : offset + len(part)] = part
        return
    # A slice would be copied with the interpreter's lock held, and training wait for it.
    target = ctypes.addressof(ctypes.c_char.from_buffer(into, offset))
    ctypes.memmove(target, ctypes.addressof(ctypes.c_char.from_buffer(part)), len(part))


def write_tensor(out: HashedFile, tensor: torch.Tensor) -> None:
    """Write a tensor of the host as torch.save does, so that torch.load reads it."""
    named = _STORAGES.get(tensor.dtype)
    if named is None or not tensor.is_contiguous():
        buffer = io.BytesIO()
        torch.save(tensor.clone(), buffer)
        out.write(buffer.getbuffer())
        return
    pickled = io.BytesIO()
    _TensorPickler(pickled, protocol=2).dump(_Shape(tensor, getattr(torch, named)))
    archive = _Archive(out)
    archive.add("archive/data.pkl", pickled.getvalue())
    archive.add("archive/byteorder", b"little")
    archive.add("archive/data/0", memory_of(tensor))
    archive.add("archive/version", b"3\n")
    archive.end()


class _Archive:
    """A zip archive without compression, written once from its beginning to its end.

    zipfile would read the tensors once more for their checksums. Those stand behind the data here, as in any archive that
    is written to a pipe; sizes have eight bytes throughout, so that tensors beyond 4 GiB need no other form.
    """

    _VERSION, _FLAGS, _DATE = 45, 0x0008, 0x0021  # zip64; the checksum follows the data; 1 January 1980

    def __init__(self, out: HashedFile) -> None:
        self._out = out
        self._began = out.digest.size
        self._directory: list[bytes] = []

    def add(self, name: str, data: bytes | memoryview) -> None:
        out, raw, offset = self._out, name.encode(), self._out.digest.size - self._began
        local = struct.pack("<HHQQ", 1, 16, 0, 0)
        common = (self._VERSION, self._FLAGS, 0, 0, self._DATE)
        out.write(struct.pack("<4s5H3L2H", b"PK\3\4", *common, 0, _MAX, _MAX, len(raw), len(local)) + raw + local)
        out.digest.mark()
        out.write(data)
        crc, size = out.digest.mark(), len(data)
        out.write(struct.pack("<4sLQQ", b"PK\7\x08", crc, size, size))
        extra = struct.pack("<HHQQQ", 1, 24, size, size, offset)
        lengths = (len(raw), len(extra), 0, 0, 0)
        fixed = struct.pack("<4s6H3L5H2L", b"PK\1\2", self._VERSION, *common, crc, _MAX, _MAX, *lengths, 0, _MAX)
        self._directory.append(fixed + raw + extra)

    def end(self) -> None:
        count, offset = len(self._directory), self._out.digest.size - self._began
        directory = b"".join(self._directory)
        size, version = len(directory), self._VERSION
        where = offset + size
        record = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, version, version, 0, 0, count, count, size, offset)
        locator = struct.pack("<4sLQL", b"PK\6\7", 0, where, 1)
        last = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, _MAX, _MAX, 0)
        self._out.write(directory + record + locator + last)


def memory_of(tensor: torch.Tensor) -> memoryview:
    """The bytes of a contiguous tensor of the host, not copied: valid while the tensor lives."""
    if not tensor.nbytes:
        return memoryview(b"")
    return memoryview((ctypes.c_char * tensor.nbytes).from_address(tensor.data_ptr())).cast("B")


# The names by which torch.load finds a storage's type. Types without one (float8 and other young ones) go through torch.save.
_STORAGES = {
    torch.float64: "DoubleStorage",
    torch.float32: "FloatStorage",
    torch.float16: "HalfStorage",
    torch.bfloat16: "BFloat16Storage",
    torch.int64: "LongStorage",
    torch.int32: "IntStorage",
    torch.int16: "ShortStorage",
    torch.int8: "CharStorage",
    torch.uint8: "ByteStorage",
    torch.bool: "BoolStorage",
    torch.complex64: "ComplexFloatStorage",
    torch.complex128: "ComplexDoubleStorage",
}


class _Storage:
    """Stands for the tensor's memory, which is a file of its own in the archive."""

    def __init__(self, kind: type, count: int) -> None:
        self.identity = ("storage", kind, "0", "cpu", count)


class _Shape:
    """Pickled as the call that makes the tensor again."""

    def __init__(self, tensor: torch.Tensor, kind: type) -> None:
        self._tensor, self._kind = tensor, kind

    def __reduce__(self) -> tuple[Any, ...]:
        tensor = self._tensor
        memory = _Storage(self._kind, tensor.numel())
        arguments: tuple[Any, ...] = (memory, 0, tuple(tensor.shape), tensor.stride(), False, OrderedDict())
        return torch._utils._rebuild_tensor_v2, arguments  # noqa: SLF001 (the name that stands in every file of torch.save)


class _TensorPickler(pickle.Pickler):
    def persistent_id(self, value: Any) -> Any:
        return value.identity if isinstance(value, _Storage) else None


def _spread(items: list[WriteItem], count: int) -> list[list[WriteItem]]:
    """The items in `count` lists of about the same size, the greatest first."""
    buckets: list[list[WriteItem]] = [[] for _ in range(count)]
    sizes = [0] * count
    for item in sorted(items, key=_bytes_of, reverse=True):
        least = sizes.index(min(sizes))
        buckets[least].append(item)
        sizes[least] += _bytes_of(item) + 1
    return buckets


def _bytes_of(item: WriteItem) -> int:
    if item.type == WriteItemType.BYTE_IO or item.tensor_data is None:
        return 0
    return int(item.tensor_data.chunk.sizes.numel()) * int(item.tensor_data.properties.dtype.itemsize)
