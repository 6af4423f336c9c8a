"""Local disks that lose what is written to them, answer with errors, or are slower than the site demands.

What the kernel's error means is chosen by its name: an I/O error is the device, a read-only file system is what became of one
and may be put right by the check of a reboot, a full one or one that may not be written says nothing of the disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nodewatch.checks._api import Phase, check
from nodewatch.errors import SensorError
from nodewatch.model.health import Finding, Remedy, Severity
from nodewatch.model.stress_samples import DiskProbe, DiskSample

_DEVICE = frozenset({"EIO", "ENODATA", "EREMOTEIO", "EILSEQ", "EBADE", "ENXIO", "ENODEV", "ETIMEDOUT"})
"""The block layer's own errors (Linux, block/blk-core.c): medium, target, integrity, a device that is gone or silent."""
_FILE_SYSTEM = frozenset({"EROFS", "EUCLEAN", "EBADMSG", "ESHUTDOWN"})
_SITE = frozenset(
    {
        "ENOSPC",
        "EDQUOT",
        "EACCES",
        "EPERM",
        "ENOENT",
        "ENOTDIR",
        "EMFILE",
        "ENFILE",
        "ENOMEM",
        "EFBIG",
        "EINTR",
        "EINVAL",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """0 judges nothing: instance stores differ by type and size, a site knows its own."""

    least_write_mb_per_s: float = 0.0
    least_read_mb_per_s: float = 0.0


@check(reads=DiskSample, phases=Phase.DEEP, every_s=3600.0, thresholds=Thresholds)
def disk_write(sample: DiskSample, thresholds: Thresholds) -> Iterator[Finding]:
    """`disk.wrong_bytes`, `disk.error`, `disk.readonly` or `disk.slow` on each directory that has it.

    Raises SensorError, when nothing is wrong with another, for one that could not be tested for want of space or rights.
    """
    untested: DiskProbe | None = None
    is_clean = True
    for disk in sample.disks:
        finding = _judge(disk, thresholds)
        if finding is not None:
            is_clean = False
            yield finding
        elif disk.failed is not None:
            untested = untested or disk
    if is_clean and untested is not None:
        raise SensorError(
            f"{untested.path} could not be tested ({untested.failed}: {untested.said or untested.error}): free space there, "
            "let root write there, or take it out of disk_directories"
        )


def _judge(disk: DiskProbe, thresholds: Thresholds) -> Finding | None:
    if disk.wrong_blocks:
        return _finding(disk, "disk.wrong_bytes", Severity.FATAL, Remedy.REPLACE)
    if disk.failed is not None:
        if disk.error in _DEVICE:
            return _finding(disk, "disk.error", Severity.FATAL, Remedy.REPLACE)
        if disk.error in _FILE_SYSTEM:
            return _finding(disk, "disk.readonly", Severity.DEGRADED, Remedy.REBOOT)
        return None if disk.error in _SITE else _finding(disk, "disk.error", Severity.DEGRADED, Remedy.HUMAN)
    for measured, least in (
        (disk.write_mb_per_s, thresholds.least_write_mb_per_s),
        (disk.read_mb_per_s, thresholds.least_read_mb_per_s),
    ):
        if measured is not None and measured < least:
            return _finding(disk, "disk.slow", Severity.DEGRADED, Remedy.REBOOT, floor_mb_per_s=least)
    return None


def _finding(disk: DiskProbe, fault: str, severity: Severity, remedy: Remedy, **more: float) -> Finding:
    return Finding(
        fault=fault,
        subject=disk.path,
        severity=severity,
        remedy=remedy,
        evidence={
            "bytes": disk.size,
            "write_mb_per_s": disk.write_mb_per_s,
            "read_mb_per_s": disk.read_mb_per_s,
            "wrong_blocks": disk.wrong_blocks,
            "first_wrong": disk.first_wrong,
            "past_the_cache": disk.is_direct,
            "failed": disk.failed,
            "error": disk.error,
            "said": disk.said,
            "source": "a file written, synced and read back",
            **more,
        },
    )
