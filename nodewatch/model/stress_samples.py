"""What is read of the host under load: processors and memory that check their own results, and disks written and read back."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class StressRun:
    """One run of stress-ng that ended, and the lines in which it says that a result was wrong."""

    workers: int
    seconds: float
    wrong: tuple[str, ...] = ()
    said: str = ""
    """Its own last line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuStressSample:
    """The processors computed what has a known result."""

    run: StressRun


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryStressSample:
    """Patterns were written to memory and read back; `size` is in bytes, of all workers together."""

    run: StressRun
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskProbe:
    """One directory in which a file was written, synced and read back. Speeds are in MB/s (10^6 bytes)."""

    path: str
    size: int = 0
    """Bytes that were written."""
    write_mb_per_s: float | None = None
    read_mb_per_s: float | None = None
    wrong_blocks: int = 0
    """Blocks of 4096 bytes that came back otherwise than they were written."""
    first_wrong: int | None = None
    """Where the first of them begins, in bytes."""
    is_direct: bool = False
    """It was read past the page cache, so from the device."""
    failed: str | None = None
    """`write`, `sync`, `read`, ..., when the kernel gave an error; then `error` names it (EIO) and `said` says it."""
    error: str = ""
    said: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskSample:
    """The local directories that are configured."""

    disks: tuple[DiskProbe, ...]
