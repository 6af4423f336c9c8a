"""The files of one journal: the one that is written, those before it, and the snapshot from which each begins.

    journal.jsonl                           written now
    journal-000000200001.jsonl(.gz)         full; its first record is number 200001
    journal-000000200001.snapshot.json.gz   what all records before number 200001 amount to

A torn last line of the newest file is what a crash leaves. Records with numbers that a later file has too were written by
a controller that had been taken over from and had not noticed yet: they are passed over with a word.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import logging
import os
import re
import zlib
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from nodewatch.errors import JournalError
from nodewatch.journal.disk import Disk
from nodewatch.model.ledger import Ledger
from nodewatch.model.plain import from_plain, shape_of, to_plain
from nodewatch.model.records import SCHEMA_VERSION, Record

_log = logging.getLogger(__name__)
_DAY_S = 86400.0
_SNAPSHOT_KIND = "snapshot"
_COMPRESSION = 3
"""Journals shrink to a tenth at any level; the higher ones take several times as long."""
_TRIES = 3
"""A file that is compressed while it is read is looked for again so often."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One file of a journal. `first` is the number of its first record, None while only the file itself can tell."""

    path: Path
    first: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What the records up to `number` amount to. `is_current`: written by a release that remembers the same things."""

    path: Path
    number: int
    ledger: Ledger
    is_current: bool


def pieces(path: Path) -> list[Piece]:
    """The files of the journal whose present file is `path`, oldest first; that one is the last, if it is there."""
    pattern = re.compile(re.escape(path.stem) + r"-(\d{12})" + re.escape(path.suffix) + r"(\.gz)?")
    found: dict[int, Path] = {}
    for candidate in sorted(_listed(path.parent)):
        match = pattern.fullmatch(candidate.name)
        # Of a file and its compressed twin the first is as good, and whole for sure.
        if match and int(match[1]) not in found:
            found[int(match[1])] = candidate
    old = [Piece(path=found[first], first=first) for first in sorted(found)]
    return [*old, Piece(path=path, first=None)] if path.exists() else old


def old_name(path: Path, first: int) -> Path:
    """What the file `path` is called once it is full."""
    return path.with_name(f"{path.stem}-{first:012d}{path.suffix}")


def snapshot_name(path: Path, first: int) -> Path:
    """The snapshot from which the file with the record `first` begins."""
    return path.with_name(f"{path.stem}-{first:012d}.snapshot.json.gz")


def snapshot_names(path: Path) -> list[tuple[int, Path]]:
    """(number of the first record after it, file) of each snapshot, newest first, good or not."""
    pattern = re.compile(re.escape(path.stem) + r"-(\d{12})\.snapshot\.json\.gz")
    found = [(int(m[1]), p) for p in _listed(path.parent) if (m := pattern.fullmatch(p.name))]
    return sorted(found, reverse=True)


def packed(ledger: Ledger, number: int, at: float) -> bytes:
    """A snapshot file's content."""
    document = {
        "v": SCHEMA_VERSION,
        "kind": _SNAPSHOT_KIND,
        "n": number,
        "at": at,
        "shape": zlib.crc32(shape_of(Ledger).encode()),
        "ledger": to_plain(ledger),
    }
    return gzip.compress(json.dumps(document, separators=(",", ":"), default=str).encode(), 1, mtime=int(at))


def load_snapshot(path: Path) -> Snapshot:
    """Raises JournalError that names the file for one that is torn, damaged, or of a newer schema."""
    try:
        # gzip's own check sum tells a torn or changed file.
        document = json.loads(gzip.decompress(path.read_bytes()))
        if document["v"] != SCHEMA_VERSION or document["kind"] != _SNAPSHOT_KIND:
            raise ValueError(f"schema version {document['v']!r}, this release reads {SCHEMA_VERSION}")
        return Snapshot(
            path=path,
            number=int(document["n"]),
            ledger=from_plain(Ledger, document["ledger"]),
            is_current=document["shape"] == zlib.crc32(shape_of(Ledger).encode()),
        )
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise JournalError(f"{path} is no whole snapshot ({_what(error)})") from error


def read(path: Path, kinds: Collection[str] | None = None, holding: Collection[str] | None = None) -> Iterator[Record]:
    """The records in the one file `path` in order, of `kinds` only if given; none when there is no file.

    With `holding` records whose line has none of these texts may be left out unread, which is most of the time saved.

    A torn last line is left out. Raises JournalError naming file and line for anything else that is no record.
    """
    wanted = None if kinds is None else tuple(f'"kind":{json.dumps(kind)}'.encode() for kind in kinds)
    if wanted is None and holding is not None:
        wanted = tuple(text.encode() for text in holding)
    expected: int | None = None
    torn = 0
    index = 0
    for index, line in enumerate(_lines(path), start=1):
        if not line.endswith(b"\n"):
            torn = len(line)
            break
        if wanted is not None and not any(word in line for word in wanted):
            # Most of a year's records are not asked for, and reading their JSON is what takes the time.
            expected = None
            continue
        try:
            record = Record.from_json(json.loads(line))
            if expected is not None and record.number != expected:
                raise ValueError(f"its number is {record.number} where {expected} follows: lines were lost")
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            cure = "move the file away to start anew, or restore it"
            if "schema version" in str(error):
                cure = f"install the release that wrote it, or {cure}"
            raise JournalError(f"{path}: line {index} is no journal record ({_what(error)}): {cure}") from error
        expected = record.number + 1 if wanted is None else None
        if kinds is None or record.kind in kinds:
            yield record
    if torn:
        _log.warning("%s: the last line is torn and was dropped (%d bytes)", path, torn)


def read_all(
    path: Path,
    *,
    after: int = 0,
    kinds: Collection[str] | None = None,
    holding: Collection[str] | None = None,
    since: float = 0.0,
    tell: Callable[[int, int], None] = lambda _place, _count: None,
) -> Iterator[Record]:
    """The records of the journal `path` in all its files, in order, those with numbers above `after` only.

    Files that were last written before `since` (seconds since the epoch) are left out, which gives some records too many
    at the beginning. `holding`: see `read`. `tell(place, count)` is called before each file. Raises JournalError where a
    file is damaged or missing between others.
    """
    files = pieces(path)
    firsts = [piece.first if piece.first is not None else _first_number(piece.path) for piece in files]
    files = [piece for piece, first in zip(files, firsts, strict=True) if first is not None]
    firsts = [first for first in firsts if first is not None]
    expected: int | None = None
    for place, piece in enumerate(files):
        limit = firsts[place + 1] if place + 1 < len(files) else None
        if limit is not None and (limit <= after + 1 or _written_at(piece.path) < since):
            continue
        tell(place + 1, len(files))
        if kinds is None and holding is None and expected is not None and firsts[place] != expected:
            raise JournalError(
                f"{piece.path} begins with record {firsts[place]} where {expected} follows: "
                "a file of the journal is missing, restore it"
            )
        for record in read(piece.path, kinds, holding):
            if limit is not None and record.number >= limit:
                _log.warning(
                    "%s: record %d and those after it were passed over: a controller wrote them that had been taken over from",
                    piece.path,
                    record.number,
                )
                break
            expected = record.number + 1
            if record.number > after:
                yield record


def last(path: Path, count: int) -> list[Record]:
    """The last `count` records of the journal, oldest first."""
    found: deque[Record] = deque(maxlen=count)
    for piece in reversed(pieces(path)):
        lines = deque((line for line in _lines(piece.path) if line.endswith(b"\n")), maxlen=count - len(found))
        ahead = found[0].number if found else None
        for line in reversed(lines):
            with contextlib.suppress(ValueError, KeyError, TypeError):
                record = Record.from_json(json.loads(line))
                if ahead is None or record.number < ahead:
                    found.appendleft(record)
                    ahead = record.number
        if len(found) >= count:
            break
    return list(found)


def tidy(path: Path, *, keep_days: float, now: float, disk: Disk) -> None:
    """Compress the full files of the journal and remove those that are older than `keep_days`. Safe to break off anywhere.

    A file goes only when the snapshot that stands for it can be read. Raises JournalError.
    """
    try:
        old = [piece for piece in pieces(path) if piece.first is not None]
        for place, piece in enumerate(old):
            is_past = now - _written_at(piece.path) > keep_days * _DAY_S
            nearest = old[place + 1].first if place + 1 < len(old) else _newest_first(path)
            if is_past and nearest is not None and _is_good(snapshot_name(path, nearest)):
                assert piece.first is not None
                disk.remove(piece.path)
                disk.remove(snapshot_name(path, piece.first))
            elif piece.path.suffix != ".gz":
                _compress(piece.path, disk)
        for whole in (piece.path for piece in old if piece.path.suffix != ".gz"):
            packed_twin = whole.with_name(whole.name + ".gz")
            if packed_twin.exists():
                disk.remove(whole)
    except OSError as error:
        raise JournalError(f"{path}: its old files cannot be put away: {error}") from error


def _compress(path: Path, disk: Disk) -> None:
    target = path.with_name(path.name + ".gz")
    temporary = path.with_name(path.name + ".gz.tmp")
    with path.open("rb") as source, gzip.open(temporary, "wb", compresslevel=_COMPRESSION) as sink:
        while block := source.read(1 << 20):
            sink.write(block)
    stamp = path.stat()
    fd = disk.open(temporary)
    try:
        disk.sync(fd)
    finally:
        os.close(fd)
    # Its age counts from its last record, not from its compression.
    os.utime(temporary, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    disk.rename(temporary, target)
    disk.sync_directory(path.parent)
    disk.remove(path)


def _newest_first(path: Path) -> int | None:
    names = snapshot_names(path)
    return names[0][0] if names else None


def _is_good(path: Path) -> bool:
    try:
        load_snapshot(path)
    except JournalError as error:
        _log.warning("%s: the files before it are kept", error)
        return False
    return True


def _listed(directory: Path) -> Sequence[Path]:
    try:
        return list(directory.iterdir())
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise JournalError(f"{directory} cannot be read: {error}") from error


def _first_number(path: Path) -> int | None:
    return next((record.number for record in read(path)), None)


def _written_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return float("inf")


def _lines(path: Path) -> Iterator[bytes]:
    stream = _opened(path)
    if stream is None:
        return
    try:
        with stream:
            yield from stream
    except (OSError, EOFError, zlib.error) as error:
        raise JournalError(f"{path} cannot be read: {error}") from error


def _opened(path: Path) -> IO[bytes] | None:
    for _ in range(_TRIES):
        for candidate in (path, path.with_name(path.name + ".gz")):
            try:
                opener: Any = gzip.open if candidate.suffix == ".gz" else open
                stream: IO[bytes] = opener(candidate, "rb")
                return stream
            except FileNotFoundError:
                continue
            except OSError as error:
                raise JournalError(f"{path} cannot be read: {error}") from error
    return None


def _what(error: Exception) -> str:
    # A KeyError's own text is the bare key.
    return f"it has no {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__


def base_of(piece: Path) -> Ledger | None:
    """What all records before the first one of the file `piece` amount to; None where no snapshot beside it says so."""
    first = _first_number(piece)
    match = re.fullmatch(r"(.+?)(-\d{12})?\.jsonl(\.gz)?", piece.name)
    if first is None or first == 1 or match is None:
        return None
    name = snapshot_name(piece.with_name(f"{match[1]}.jsonl"), first)
    return load_snapshot(name).ledger if name.exists() else None
