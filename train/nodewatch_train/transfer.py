"""Files from rank to rank, piece by piece, over the group that checkpoints have. Every rank calls with the same list."""

import errno
import mmap
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from nodewatch_train.choice import say
from nodewatch_train.digest import FileEntry
from nodewatch_train.storage import HashedFile, memory_of

_PIECE = 4 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """One file of `size` bytes on its way: `source` and `target` are paths on the two ranks."""

    sender: int
    receiver: int
    size: int
    source: Path
    target: Path


def exchange(parcels: Sequence[Parcel], *, rank: int, group: Any) -> Mapping[Path, FileEntry]:
    """Send and receive what concerns this rank, both at once; returns what was received and is flushed, by target.

    A file that cannot be read or written is said and its bytes pass all the same, since the peer waits for them: it is
    not among what was received, or not as it should be. Raises what the group raises when a peer is gone.
    """
    received: dict[Path, FileEntry] = {}
    streams: list[Iterator[Any]] = []
    mine = [parcel for parcel in parcels if rank in (parcel.sender, parcel.receiver)]
    for sender, receiver in dict.fromkeys((parcel.sender, parcel.receiver) for parcel in mine):
        theirs = [parcel for parcel in mine if (parcel.sender, parcel.receiver) == (sender, receiver)]
        streams.append(_send(theirs, group) if sender == rank else _receive(theirs, group, received))
    while streams:
        # One piece of each stream on its way before any is waited for: no rank waits for another to begin.
        posted = [(stream, next(stream, None)) for stream in streams]
        streams = [stream for stream, work in posted if work is not None]
        for _, work in posted:
            if work is not None:
                work.wait()
    return received


def copy_file(source: Path, target: Path, *, writer: Executor | None = None) -> FileEntry:
    """Copy within this machine, flushed, and say what was written. Raises OSError."""
    with (
        open(source, "rb", buffering=0) as stream,
        HashedFile(target, writer=writer) as out,
        mmap.mmap(-1, _PIECE) as buffer,
    ):
        while count := stream.readinto(buffer):
            with memoryview(buffer) as view, view[:count] as part:
                out.write(part)
        return out.flushed()


def _send(parcels: Sequence[Parcel], group: Any) -> Iterator[Any]:
    buffer = torch.empty(_PIECE, dtype=torch.uint8)
    for parcel in parcels:
        with ExitStack() as stack:
            stream = None
            with _telling(parcel.source):
                stream = stack.enter_context(open(parcel.source, "rb", buffering=0))
            for count in _pieces(parcel.size):
                part = buffer[:count]
                with _telling(parcel.source):
                    if stream is not None and not _filled(stream, memory_of(part)):
                        raise OSError(errno.EIO, "it is shorter than it was")
                yield dist.isend(part, dst=parcel.receiver, group=group)


def _receive(parcels: Sequence[Parcel], group: Any, received: dict[Path, FileEntry]) -> Iterator[Any]:
    buffer = torch.empty(_PIECE, dtype=torch.uint8)
    for parcel in parcels:
        with ExitStack() as stack:
            out: HashedFile | None = None
            with _telling(parcel.target):
                out = stack.enter_context(HashedFile(parcel.target))
            for count in _pieces(parcel.size):
                part = buffer[:count]
                yield dist.irecv(part, src=parcel.sender, group=group)
                try:  # resumed once the piece was waited for
                    if out is not None:
                        out.write(memory_of(part))
                except OSError as error:
                    out = None
                    say(f"{parcel.target} cannot be written ({error.strerror})")
            with _telling(parcel.target):
                if out is not None:
                    received[parcel.target] = out.flushed()


def _filled(stream: Any, view: memoryview) -> bool:
    done = 0
    while done < len(view):
        count = stream.readinto(view[done:])
        if not count:
            return False
        done += count
    return True


def _pieces(size: int) -> Iterator[int]:
    for start in range(0, size, _PIECE):
        yield min(_PIECE, size - start)


@contextmanager
def _telling(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        say(f"{path} cannot be passed between ranks ({error.strerror})")
