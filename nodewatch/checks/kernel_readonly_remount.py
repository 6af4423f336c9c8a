"""Local file systems that went read-only or shut themselves down, and errors that lead there."""

from __future__ import annotations

import re
from collections.abc import Iterator

from nodewatch.checks._api import Phase, check
from nodewatch.checks._kernel import Line, hits
from nodewatch.model.health import Finding, Remedy, Severity
from nodewatch.model.samples import KmsgSample

_DEVICE = r"(?P<subject>[\w.!/-]{1,64})"
_LINES = (
    Line(
        fault="host.filesystem_readonly",
        pattern=re.compile(rf"EXT[234]-fs \({_DEVICE}\): Remounting filesystem read-only"),
        severity=Severity.DEGRADED,
        remedy=Remedy.REBOOT,
    ),
    Line(
        fault="host.filesystem_readonly",
        pattern=re.compile(rf"BTRFS.{{0,40}}\(device {_DEVICE}(?:: state \w+)?\).{{0,80}}forced readonly"),
        severity=Severity.DEGRADED,
        remedy=Remedy.REBOOT,
    ),
    Line(
        fault="host.filesystem_shutdown_asked",
        pattern=re.compile(rf"XFS \({_DEVICE}\): User initiated shutdown received"),
        severity=Severity.INFO,
    ),
    Line(
        fault="host.filesystem_shutdown",
        pattern=re.compile(
            rf"XFS \({_DEVICE}\): (?:Filesystem has been shut down due to|.{{0,120}}[Ss]hutting down filesystem"
            r"|xfs_do_force_shutdown\()"
        ),
        severity=Severity.DEGRADED,
        remedy=Remedy.REBOOT,
    ),
    Line(
        fault="host.filesystem_error",
        pattern=re.compile(
            rf"EXT[234]-fs error \(device {_DEVICE}\)|Aborting journal on device (?P<journal>[\w.-]+)"
            rf"|XFS \((?P<xfs>[\w.-]+)\): (?:[Mm]etadata (?:I/O error|corruption detected)|log I/O error)"
        ),
        severity=Severity.WARN,
        subject="filesystem",
    ),
    Line(
        fault="host.filesystem_dirty",
        pattern=re.compile(rf"EXT[234]-fs \({_DEVICE}\): warning: mounting fs with errors"),
        severity=Severity.WARN,
    ),
)


@check(reads=KmsgSample, phases=Phase.PERIODIC | Phase.DEEP, lasting=True)
def kernel_readonly_remount(sample: KmsgSample) -> Iterator[Finding]:
    """`host.filesystem_readonly` and `host.filesystem_shutdown` on the device: degraded, reboot (which runs the check of
    the file system); errors that the file system lived through are warnings, a shutdown that somebody asked for is none."""
    found = list(hits(sample, ("EXT", "XFS (", "BTRFS", "Aborting journal"), _LINES))
    asked = {hit.subject for hit in found if hit.line.fault == "host.filesystem_shutdown_asked"}
    for hit in found:
        # "User initiated shutdown" is followed by the same line as a shutdown for a fault.
        if hit.line.fault == "host.filesystem_shutdown" and hit.subject in asked:
            continue
        if hit.line.severity is Severity.DEGRADED and re.match(r"(?:loop|ram|zram|nbd)\d", hit.subject):
            # An image that a user mounted: nothing of the machine's own lies on it.
            yield hit.finding(Severity.WARN, Remedy.NONE)
            continue
        yield hit.finding()
