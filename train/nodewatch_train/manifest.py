"""The commit protocol of checkpoints: a directory is a checkpoint when its manifest says so and every byte agrees.

    begin    make ROOT/.tmp-<step>-<random>/ for the ranks to write into
    commit   fsync every file; write manifest.json and fsync it; fsync the directory; rename it to ROOT/step-<8 digits>;
             fsync ROOT
    verify   sizes and SHA-256 of every file, and of the manifest itself
    prune    keep the newest few that verify

A crash at any moment leaves either no `step-` directory or a whole one; what a disk or a file system loses afterwards
is found by `verify`, and `newest_verified` then takes the checkpoint before. Standard library only, so that a
controller without torch can verify too.

manifest.json is one line of JSON with sorted keys and no spaces, exactly as `Manifest.render` writes it:

    {"created_at":SECONDS,"extra":{...},"files":{"NAME":{"sha256":"HEX","size":BYTES},...},"format_version":1,
     "manifest_sha256":"HEX","step":N,"world_size":N}

`manifest_sha256` is the SHA-256 of that same line without the field and without the newline. Files in the directory
which the manifest does not name are ignored (network file systems leave some behind). Version 2 is written only where a
file is larger than a chunk: its entry then also has `"chunks":["CRC",...]` (see `digest`). Both versions are read.
"""

import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nodewatch_train.digest import FileEntry, chunks_of, content_faults, digest_of, root_of, size_faults

__all__ = ["CheckpointError", "FileEntry", "Manifest", "RefusedError", "Verification"]

FORMAT_VERSION = 2
"""The newest version that is read; the oldest that can say it is written."""
MANIFEST = "manifest.json"
LAST_STEP = 99_999_999
"""The greatest step that the eight digits of a directory's name can hold."""

# A checkpoint that is being replaced keeps its step in its name: a crash between the two renames loses nothing.
_CHECKPOINT = re.compile(r"step-(\d{8})(\.replaced-[0-9a-f]+)?", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_CRC = re.compile(r"[0-9a-f]{8}", re.ASCII)

AfterCall = Callable[[str], None]
"""Told the name of each system call of the protocol once it has returned; tests stop the process there."""


class CheckpointError(Exception):
    """A checkpoint or its directory cannot be used; the message is one sentence: what, where, what to do."""


class RefusedError(CheckpointError):
    """This run must not use this checkpoint, and starting it again cannot help (another model, other data)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a checkpoint holds.

    step: optimiser steps completed. world_size: ranks that wrote it. created_at: seconds since the epoch.
    extra: JSON values of the writer's own, such as the fingerprint of the model.
    """

    step: int
    world_size: int
    files: Mapping[str, FileEntry]
    created_at: float
    extra: Mapping[str, Any] = field(default_factory=dict)

    def render(self) -> bytes:
        """The bytes of manifest.json, with their own checksum inside."""
        body: dict[str, Any] = {
            "format_version": 2 if any(entry.chunks for entry in self.files.values()) else 1,
            "step": self.step,
            "world_size": self.world_size,
            "files": {
                name: {"size": e.size, "sha256": e.sha256} | ({"chunks": list(e.chunks)} if e.chunks else {})
                for name, e in self.files.items()
            },
            "created_at": self.created_at,
            "extra": dict(self.extra),
        }
        body["manifest_sha256"] = hashlib.sha256(_one_line(body)).hexdigest()
        return _one_line(body) + b"\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """The outcome of `verify`: `ok`, or the `reason` why not, naming the file. `manifest` is there exactly when ok."""

    ok: bool
    reason: str
    manifest: Manifest | None = None


def begin(root: Path, step: int, *, after: AfterCall | None = None) -> Path:
    """Make the directory that the files of checkpoint `step` are written into.

    Raises CheckpointError when the step does not fit the name or the directory cannot be made.
    """
    if not 0 <= step <= LAST_STEP:
        raise CheckpointError(f"step {step} cannot name a checkpoint: it must lie between 0 and {LAST_STEP}")
    path = root / f".tmp-{step}-{secrets.token_hex(6)}"
    with _telling(f"cannot start checkpoint {step} in {root}"):
        path.mkdir()
        _tell(after, "mkdir")
    return path


def describe(path: Path, *, after: AfterCall | None = None) -> FileEntry:
    """Flush one file to stable storage and say what it holds.

    To be called by the process that wrote the file: on a network file system nobody else's fsync flushes its pages.
    Raises CheckpointError when it cannot be read or flushed.
    """
    with _telling(f"cannot flush {path}"), open(path, "rb") as stream:
        os.fsync(stream.fileno())
        _tell(after, f"fsync {path.name}")
        return digest_of(path)


def commit(
    tmp: Path,
    step: int,
    *,
    world_size: int,
    extra: Mapping[str, Any] | None = None,
    described: Mapping[str, FileEntry] | None = None,
    created_at: float | None = None,
    after: AfterCall | None = None,
) -> Path:
    """Turn the directory from `begin` into checkpoint `step` of its parent, and return its new path.

    `described` holds the files which their writers have already flushed and hashed (`describe`); the others are done
    here. A checkpoint of the same step is replaced. Raises CheckpointError, and then the directory is not a checkpoint.
    """
    root = tmp.parent
    final = root / f"step-{step:08d}"
    with _telling(f"cannot commit checkpoint {final}"):
        names = sorted(entry.name for entry in os.scandir(tmp) if entry.name != MANIFEST)
        files = {name: (described or {}).get(name) or describe(tmp / name, after=after) for name in names}
        if absent := sorted(set(described or {}) - set(names)):
            raise CheckpointError(f"cannot commit checkpoint {final}: {absent[0]}, which a rank wrote, is not in {tmp}")
        if not files:
            raise CheckpointError(f"cannot commit checkpoint {final}: nothing was written into {tmp}")
        manifest = Manifest(
            step=step,
            world_size=world_size,
            files=files,
            created_at=time.time() if created_at is None else created_at,
            extra=extra or {},
        )
        with open(tmp / MANIFEST, "xb") as stream:
            stream.write(manifest.render())
            stream.flush()
            _tell(after, "write manifest")
            os.fsync(stream.fileno())
            _tell(after, "fsync manifest")
    return adopt(tmp, step, after=after)


def adopt(tmp: Path, step: int, *, after: AfterCall | None = None) -> Path:
    """Turn a directory with a manifest, all of whose files are flushed, into checkpoint `step` of its parent."""
    root = tmp.parent
    final = root / f"step-{step:08d}"
    with _telling(f"cannot commit checkpoint {final}"):
        flush(tmp)
        _tell(after, "fsync directory")
        if final.exists():
            # Aside, under a name that newest_verified still reads: it may be the only good one until the next rename.
            final.rename(root / f"{final.name}.replaced-{secrets.token_hex(6)}")
            _tell(after, "rename the one before")
        tmp.rename(final)
        _tell(after, "rename")
        flush(root)
        _tell(after, "fsync parent")
        for path in root.glob(f"{final.name}.replaced-*"):
            _delete(path)
            _tell(after, "delete the one before")
    return final


def verify(path: Path, *, checksums: bool = True, sample: float = 1.0) -> Verification:
    """Whether `path` is a whole checkpoint; never raises for what it finds there.

    Without `checksums` only the manifest and the sizes are looked at: enough for files that this process wrote or
    verified before, and thousands of times cheaper. `sample` is the share of the content that is read, at random.
    """
    name = _CHECKPOINT.fullmatch(path.name)
    if name is None:
        return _bad(f"{path} is not named like a checkpoint (step- and eight digits)")
    found = verify_files(path, checksums=checksums, sample=sample)
    if found.manifest is not None and found.manifest.step != int(name[1]):
        said = found.manifest.step
        return _bad(f"{path.name}: {MANIFEST} says step {said}: it lies, or the directory was renamed")
    return found


def verify_files(path: Path, *, checksums: bool = True, sample: float = 1.0) -> Verification:
    """As `verify`, whatever the directory is called."""
    try:
        raw = _read_plain(path / MANIFEST)
    except (FileNotFoundError, NotADirectoryError):
        return _bad(f"{path.name} has no {MANIFEST}: it was never completed, or was damaged")
    except OSError as error:
        return _bad(f"{path.name}: {MANIFEST} cannot be read ({error.strerror or error})")
    manifest = _parse(raw)
    if isinstance(manifest, str):
        return _bad(f"{path.name}: {MANIFEST} {manifest}")
    # Sizes first: they cost next to nothing.
    faults = size_faults(path, manifest.files)
    if not faults and checksums:
        faults = content_faults(path, manifest.files, share=sample)
    return _bad(f"{path.name}: {faults[0]}") if faults else Verification(ok=True, reason="", manifest=manifest)


def newest_verified(root: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint in `root` that verifies, and one sentence for each newer one that was skipped.

    Raises CheckpointError when `root` is not a directory that can be listed.
    """
    skipped: list[str] = []
    for path in checkpoints(root):
        verification = verify(path)
        if verification.ok:
            return path, skipped
        skipped.append(f"skipped {verification.reason}")
    return None, skipped


def prune(root: Path, keep: int, *, trusted: Collection[str] = (), up_to: int = LAST_STEP) -> list[str]:
    """Delete the checkpoints older than the newest `keep` that verify, and return the names of the deleted.

    Those of steps beyond `up_to` are neither counted nor deleted: a run that was sent back to an older checkpoint would
    otherwise lose the ones that it writes itself to the ones that it left behind. Nor are those of a newer nodewatch,
    which may be good and cannot be read here.

    Deletes nothing while fewer than `keep` verify, so the only good one always stays. The directories named in
    `trusted` were written or verified by this process: their sizes are checked again, not every byte.
    Raises CheckpointError when `keep` is below 1 or a deletion fails.
    """
    if keep < 1:
        raise CheckpointError(f"cannot keep {keep} checkpoints in {root}: keep at least 1")
    verified = 0
    deleted: list[str] = []
    for path in checkpoints(root):
        if step_of(path) > up_to or is_newer(path):
            continue
        if verified >= keep:
            with _telling(f"cannot delete the old checkpoint {path}"):
                _delete(path)
            deleted.append(path.name)
        elif verify(path, checksums=path.name not in trusted).ok:
            verified += 1
    return deleted


def sweep(root: Path) -> list[str]:
    """Delete what earlier writers left unfinished, and return the names.

    To be called once at the start, before anything is written: a writer that outlived its job then fails at its commit,
    and does not put an old step in place of a new one.
    """
    leftovers = sorted(path for path in root.glob(".tmp-*") if path.is_dir())
    for path in leftovers:
        with _telling(f"cannot delete the unfinished checkpoint {path}"):
            shutil.rmtree(path)
    return [path.name for path in leftovers]


def check_directory(root: Path) -> None:
    """Raise CheckpointError unless checkpoints can be written into `root`; tried for real, by making a directory."""
    if not root.exists():
        raise CheckpointError(f"the checkpoint directory {root} does not exist: create it, or name another")
    if not root.is_dir():
        raise CheckpointError(f"the checkpoint directory {root} is not a directory: move that file, or name another")
    probe = root / f".tmp-probe-{secrets.token_hex(6)}"
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        raise CheckpointError(
            f"the checkpoint directory {root} cannot be written ({error.strerror}): make it writable, or name another"
        ) from error


def checkpoints(root: Path) -> list[Path]:
    """Everything in `root` that is named like a checkpoint, newest first, whether it verifies or not.

    Raises CheckpointError when `root` cannot be listed.
    """
    with _telling(f"cannot list the checkpoint directory {root}"):
        named = [(match, path) for path in root.iterdir() if (match := _CHECKPOINT.fullmatch(path.name))]
    named.sort(key=lambda pair: (-int(pair[0][1]), pair[0][2] is not None, pair[1].name))
    return [path for _, path in named]


def is_name(name: str) -> bool:
    """Whether a directory of this name is a checkpoint, and no half-replaced one."""
    match = _CHECKPOINT.fullmatch(name)
    return match is not None and match[2] is None


def is_newer(path: Path) -> bool:
    """Whether a newer nodewatch than this wrote that checkpoint, by its own word."""
    try:
        body = json.loads(_read_plain(path / MANIFEST))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(body, dict) and _is_newer(body.get("format_version"))


def step_of(path: Path) -> int:
    """The step in the name of a checkpoint's directory. Raises CheckpointError for another name."""
    match = _CHECKPOINT.fullmatch(path.name)
    if match is None:
        raise CheckpointError(f"{path} is not named like a checkpoint (step- and eight digits)")
    return int(match[1])


def _parse(raw: bytes) -> Manifest | str:
    """The manifest in these bytes, or what is wrong with them."""
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        return f"is not JSON ({len(raw)} bytes): it was torn or overwritten"
    if not isinstance(body, dict):
        return "is not a JSON object"
    version = body.get("format_version")
    if _is_newer(version):
        return f"has format version {version}, and this nodewatch reads up to {FORMAT_VERSION}: update nodewatch here"
    if type(version) is not int or version < 1:
        return "has no format version that is known"
    step, world_size, created_at, extra = (body.get(k) for k in ("step", "world_size", "created_at", "extra"))
    if type(step) is not int or not 0 <= step <= LAST_STEP:
        return "has no valid step"
    if type(world_size) is not int or world_size < 1:
        return "has no valid world_size"
    if type(created_at) not in (int, float) or not (created_at is not None and 0 <= created_at < 1e12):
        return "has no valid created_at"
    if not isinstance(extra, dict):
        return "has no valid extra"
    files = _parse_files(body.get("files"))
    if isinstance(files, str):
        return files
    manifest = Manifest(step=step, world_size=world_size, files=files, created_at=created_at, extra=extra)
    # Byte for byte, not field by field: a flipped bit in a field that nobody checks is a failing disk all the same.
    if manifest.render() != raw:
        return "does not match its own checksum: it was damaged or edited"
    return manifest


def _is_newer(version: object) -> bool:
    return type(version) is int and version > FORMAT_VERSION


def _parse_files(listed: object) -> dict[str, FileEntry] | str:
    if not isinstance(listed, dict) or not listed:
        return "lists no files"
    files: dict[str, FileEntry] = {}
    for name, entry in listed.items():
        # A name that leads out of the directory would let a manifest vouch for, or make us read, any file.
        if not name or "/" in name or "\0" in name or name in (".", "..", MANIFEST):
            return f"lists {name!r}, which is not the name of a checkpoint file"
        size, sha256 = (entry.get("size"), entry.get("sha256")) if isinstance(entry, dict) else (None, None)
        if type(size) is not int or size < 0 or not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
            return f"does not give a valid size and sha256 for {name}"
        chunks = entry.get("chunks", [])
        if chunks and not _are_chunks(chunks, size, sha256):
            return f"does not give valid chunks for {name}"
        files[name] = FileEntry(size=size, sha256=sha256, chunks=tuple(chunks))
    return files


def _are_chunks(chunks: object, size: int, sha256: str) -> bool:
    if not isinstance(chunks, list) or len(chunks) != chunks_of(size):
        return False
    return all(isinstance(one, str) and _CRC.fullmatch(one) for one in chunks) and root_of(chunks) == sha256


def _read_plain(path: Path) -> bytes:
    if not stat.S_ISREG(path.lstat().st_mode):
        raise OSError(f"{path.name} is not a plain file")  # opening a named pipe would wait for ever
    return path.read_bytes()


def set_aside(path: Path) -> Path:
    """Rename a checkpoint that is to be deleted, and return its new path.

    Killed halfway through the deletion, the rest is an unfinished directory for `sweep`, not a torn checkpoint.
    """
    doomed = path.with_name(f".tmp-deleted-{secrets.token_hex(6)}")
    path.rename(doomed)
    return doomed


def _delete(path: Path) -> None:
    doomed = set_aside(path)
    if doomed.is_dir() and not doomed.is_symlink():
        shutil.rmtree(doomed)
    else:
        doomed.unlink()  # a file or a link of that name must not fail every save from here on


def flush(path: Path) -> None:
    """Bring a file's contents, or a directory's entries, to the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _one_line(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()


def _bad(reason: str) -> Verification:
    return Verification(ok=False, reason=reason)


def _tell(after: AfterCall | None, call: str) -> None:
    if after is not None:
        after(call)


@contextmanager
def _telling(what: str) -> Iterator[None]:
    """Turn the operating system's errors into the one sentence of a CheckpointError."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"{what}: {error.strerror or error}") from error
