"""Is a checkpoint whole? Also one that this library did not write, and without the library that wrote it.

A driver knows one layout: what a checkpoint is called, which files it must have, and what can be proved of them. Only our own
layout proves every byte. The others prove as much as their files say of themselves, and `Report.proved` says how much: a
bit that flipped in the middle of a tensor is found in none of them but ours and plain zip archives.
Standard library only. Nothing is unpickled: a pickle is a program, and a controller must not run a user's.
"""

import json
import os
import pickletools
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nodewatch_train import manifest
from nodewatch_train.manifest import CheckpointError

_HEADER_LIMIT = 100 * 2**20
"""The longest header that safetensors itself accepts (100 MB)."""
_METADATA_LIMIT = 2**30
_THREADS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What is known of one checkpoint.

    ok: whole, as far as its layout lets one tell. reason: one clause that says what is wrong, empty when ok. proved: what
    was looked at. step: None where the layout does not say. size: bytes of its files.
    """

    path: Path
    driver: str
    step: int | None
    ok: bool
    reason: str
    proved: str
    size: int
    changed_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """One layout. claims: whether a path is named and shaped like a checkpoint of it. verify: (path, deep, sample) -> the
    reason why it is not whole (empty when it is) and what was proved. step: the step, where the layout says one."""

    name: str
    claims: Callable[[Path], bool]
    verify: Callable[[Path, bool, float], tuple[str, str]]
    step: Callable[[Path], int | None]


def find(directory: Path, *, driver: str | None = None) -> list[tuple[Path, Driver]]:
    """Every checkpoint in a directory, or the one that the path itself is, newest first.

    Raises CheckpointError when the directory cannot be listed or no such driver is known.
    """
    drivers = [_named(driver)] if driver else list(DRIVERS)
    itself = next((one for one in drivers if one.claims(directory)), None)
    if itself is not None:
        return [(directory, itself)]
    if not directory.exists():
        raise CheckpointError(f"{directory} does not exist")
    try:
        entries = list(directory.iterdir())
    except OSError as error:
        raise CheckpointError(f"{directory} cannot be listed ({error.strerror or error})") from error
    found = []
    for path in entries:
        claimed = next((one for one in drivers if not path.name.startswith(".") and one.claims(path)), None)
        if claimed is not None:
            found.append((path, claimed))
    return sorted(found, key=lambda pair: (-(pair[1].step(pair[0]) or -1), -_changed(pair[0]), pair[0].name))


def verify(path: Path, driver: Driver, *, deep: bool = True, sample: float = 1.0) -> Report:
    """Look at one checkpoint; never raises for what it finds. deep: read the content too, or the `sample` share of it."""
    try:
        reason, proved = driver.verify(path, deep, sample)
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        RecursionError,
        struct.error,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        reason, proved = f"{path.name} cannot be read ({getattr(error, 'strerror', None) or error})", ""
    step, size = driver.step(path), sum(_size(one) for one in _files(path))
    return Report(
        path=path,
        driver=driver.name,
        step=step,
        ok=not reason,
        reason=reason,
        proved=proved,
        size=size,
        changed_at=_changed(path),
    )


def newest_whole(
    directory: Path, *, driver: str | None = None, sample: float = 1.0
) -> tuple[Report | None, list[Report]]:
    """The newest checkpoint that is whole, and the reports of the newer ones that are not.

    What a controller asks before a job starts again. Raises CheckpointError as `find` does.
    """
    skipped: list[Report] = []
    for path, claimed in find(directory, driver=driver):
        report = verify(path, claimed, sample=sample)
        if report.ok:
            return report, skipped
        skipped.append(report)
    return None, skipped


# --- ours ---


def _is_ours(path: Path) -> bool:
    # By name, so that one whose manifest is missing is ours and torn; DCP's users name theirs alike, without any manifest.
    if not manifest.is_name(path.name) or not path.is_dir():
        return False
    return (path / manifest.MANIFEST).exists() or not (path / ".metadata").exists()


def _verify_ours(path: Path, deep: bool, sample: float) -> tuple[str, str]:
    found = manifest.verify(path, checksums=deep, sample=sample)
    proved = "sizes" if not deep else "every byte" if sample >= 1 else f"sizes, and {sample:.0%} of the bytes"
    return found.reason, proved


# --- torch.distributed.checkpoint ---


def _is_dcp(path: Path) -> bool:
    return path.is_dir() and ((path / ".metadata").exists() or any(path.glob("__*_*.distcp")))


def _verify_dcp(path: Path, deep: bool, sample: float) -> tuple[str, str]:  # noqa: ARG001 (a driver's signature)
    """.metadata names each file, with the offset and the length of each piece in it."""
    raw = path / ".metadata"
    if not raw.exists():
        return f"{path.name} has no .metadata: it is written last, so the save did not end", ""
    needed = dcp_extents(raw)
    if not needed:
        return f"{path.name}: .metadata names no file", ""
    for name, least in sorted(needed.items()):
        size = _plain_size(path / name)
        if size is None:
            return f"{path.name}: {name} is missing", ""
        if size < least:
            return f"{path.name}: {name} has {size} bytes and .metadata places data up to {least}", ""
    return "", "files and their least sizes, not their content"


def dcp_extents(metadata: Path) -> dict[str, int]:
    """The files that a .metadata names, each with the least size that it must have.

    The pickle is read as a list of instructions and never run. Each piece is a _StorageInfo(relative_path, offset, length),
    whose state is a dict of those names, or what follows them as constants. Raises ValueError for no whole pickle.
    """
    if metadata.stat().st_size > _METADATA_LIMIT:
        raise ValueError(f"{metadata.name} is too large to be looked at")
    raw = metadata.read_bytes()
    if not raw.endswith(b"."):
        raise ValueError(f"{metadata.name} was cut off after {len(raw)} bytes")
    memo: dict[int, Any] = {}
    last: Any = None
    field = ""
    extents: dict[str, int] = {}
    piece: dict[str, Any] = {}
    argument: Any
    for opcode, argument, _ in pickletools.genops(raw):
        name = opcode.name
        if name in ("MEMOIZE", "BINPUT", "LONG_BINPUT", "PUT"):
            memo[len(memo) if name == "MEMOIZE" else int(argument)] = last
            continue
        if name in ("BINGET", "LONG_BINGET", "GET"):
            last = memo.get(int(argument))
        elif isinstance(argument, str | int) and not isinstance(argument, bool):
            last = argument
        else:
            last = None
            if name not in ("NONE", "NEWTRUE", "NEWFALSE"):
                field = ""
            continue
        if field:
            piece[field] = last
            field = ""
            if {"relative_path", "offset", "length"} <= piece.keys():
                path, offset, length = piece["relative_path"], piece["offset"], piece["length"]
                if isinstance(path, str) and isinstance(offset, int) and isinstance(length, int):
                    extents[path] = max(extents.get(path, 0), offset + length)
                piece = {}
        elif last in ("relative_path", "offset", "length"):
            field = str(last)
            if field == "relative_path":
                piece = {}
    if any("/" in path or path in ("", ".", "..") for path in extents):
        raise ValueError(f"{metadata.name} names a file outside of its directory")
    return extents


# --- Hugging Face Trainer ---

_HF = re.compile(r"checkpoint-(\d+)", re.ASCII)


def _is_hf(path: Path) -> bool:
    return _HF.fullmatch(path.name) is not None and path.is_dir()


def _hf_step(path: Path) -> int | None:
    match = _HF.fullmatch(path.name)
    return int(match[1]) if match else None


def _verify_hf(path: Path, deep: bool, sample: float) -> tuple[str, str]:
    """trainer_state.json is written after the weights and the optimiser; its step must be the directory's."""
    state = path / "trainer_state.json"
    if not state.exists():
        return f"{path.name} has no trainer_state.json: it is written late, so the save did not end", ""
    step = _json(state).get("global_step")
    if step != _hf_step(path):
        return f"{path.name}: trainer_state.json says step {step}", ""
    names = {one.name for one in path.iterdir()}
    whole = [one for one in ("model.safetensors", "adapter_model.safetensors", "pytorch_model.bin") if one in names]
    indices = sorted(name for name in names if name.endswith((".safetensors.index.json", ".bin.index.json")))
    if not whole and not indices and not any(_is_dcp(one) for one in path.iterdir() if one.is_dir()):
        return f"{path.name} has no weights (model.safetensors, an index of shards, or a sharded directory)", ""
    needed = set(whole)
    for index in indices:
        needed |= set(_json(path / index)["weight_map"].values())
    if lost := sorted(needed - names):
        return f"{path.name}: {lost[0]} is missing, which {indices[0]} names", ""
    # A Trainer that saves no optimiser (save_only_model) cannot go on from there, but what it saved is whole.
    for name in sorted(names):
        one = path / name
        if name.endswith(".safetensors"):
            reason = safetensors_fault(one)
        elif name.endswith((".pt", ".bin", ".pth")) and zip_like(one):
            reason = zip_fault(one, deep=deep)
        elif one.is_dir() and _is_dcp(one):
            reason = _verify_dcp(one, deep, sample)[0]
        else:
            reason = f"{name} is empty" if one.is_file() and not _size(one) else ""
        if reason:
            return f"{path.name}: {reason}", ""
    return "", "all shards are there with the sizes of their headers" + ("; zip archives byte by byte" if deep else "")


def safetensors_fault(path: Path) -> str:
    """What is wrong with a safetensors file as far as its header tells, which places every tensor; empty when nothing is."""
    size = _size(path)
    with open(path, "rb") as stream:
        start = stream.read(8)
        if len(start) < 8:
            return f"{path.name} was cut off after {size} bytes"
        (length,) = struct.unpack("<Q", start)
        if length > min(_HEADER_LIMIT, size - 8):
            return f"{path.name} was cut off in its header, or is no safetensors file"
        header = json.loads(stream.read(length))
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    expected = 8 + length + max(ends, default=0)
    return "" if size == expected else f"{path.name} has {size} bytes and its header places {expected}"


# --- zip archives: torch.save and Lightning ---

_CKPT_STEP = re.compile(r"step[=_-](\d+)", re.ASCII)


def _is_lightning(path: Path) -> bool:
    return path.suffix == ".ckpt" and (path.is_file() or _is_dcp(path))


def _verify_lightning(path: Path, deep: bool, sample: float) -> tuple[str, str]:
    return _verify_dcp(path, deep, sample) if path.is_dir() else _verify_torch(path, deep, sample)


def _ckpt_step(path: Path) -> int | None:
    match = _CKPT_STEP.search(path.stem)
    return int(match[1]) if match else None


def _is_torch(path: Path) -> bool:
    return path.suffix in (".pt", ".pth") and path.is_file()


def _verify_torch(path: Path, deep: bool, sample: float) -> tuple[str, str]:  # noqa: ARG001 (a driver's signature)
    if not zip_like(path):
        return (
            f"{path.name} is no zip archive: it was torn at its beginning, or torch.save wrote its form of before 1.6",
            "",
        )
    return zip_fault(path, deep=deep), "every byte by CRC-32" if deep else "the directory of the archive"


def zip_like(path: Path) -> bool:
    """Whether the file begins as a zip archive does."""
    with open(path, "rb") as stream:
        return stream.read(4) == b"PK\x03\x04"


def zip_fault(path: Path, *, deep: bool) -> str:
    """What is wrong with an archive of torch.save; empty when nothing is. Its directory is at its end: a torn file has none."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if not any(name.endswith("/data.pkl") for name in names):
                return f"{path.name} holds no data.pkl: torch.save did not write it"
            torn = archive.testzip() if deep else None
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        return f"{path.name} is torn ({error})"
    return f"{path.name} does not match its checksum in {torn}" if torn else ""


def _no_step(path: Path) -> int | None:
    digits = re.findall(r"\d+", path.name)
    return int(digits[-1]) if digits else None


def _our_step(path: Path) -> int | None:
    return manifest.step_of(path)


DRIVERS = (
    Driver(name="nodewatch", claims=_is_ours, verify=_verify_ours, step=_our_step),
    Driver(name="huggingface", claims=_is_hf, verify=_verify_hf, step=_hf_step),
    Driver(name="lightning", claims=_is_lightning, verify=_verify_lightning, step=_ckpt_step),
    Driver(name="dcp", claims=_is_dcp, verify=_verify_dcp, step=_no_step),
    Driver(name="torch", claims=_is_torch, verify=_verify_torch, step=_no_step),
)


def verify_all(found: Iterable[tuple[Path, Driver]], *, deep: bool = True, sample: float = 1.0) -> list[Report]:
    """The reports of many, side by side."""
    with ThreadPoolExecutor(max_workers=_THREADS) as pool:
        return list(pool.map(lambda pair: verify(pair[0], pair[1], deep=deep, sample=sample), found))


def _named(name: str) -> Driver:
    for driver in DRIVERS:
        if driver.name == name:
            return driver
    known = ", ".join(driver.name for driver in DRIVERS)
    raise CheckpointError(f"there is no driver {name!r}: {known}")


def _json(path: Path) -> dict[str, Any]:
    value = json.loads(path.read_bytes())
    if not isinstance(value, dict):
        raise ValueError(f"{path.name} is not a JSON object")
    return value


def _plain_size(path: Path) -> int | None:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return [Path(top) / name for top, _, names in os.walk(path) for name in names]


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
