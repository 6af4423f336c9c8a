"""Local disks: NVMe commands that time out, controllers that are reset or given up, errors of reads and writes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from nodewatch.checks._api import Phase, check
from nodewatch.checks._kernel import Line, hits
from nodewatch.model.health import Finding, Remedy, Severity
from nodewatch.model.samples import KmsgSample

# Floppies, optical drives and loop devices of a virtual machine give errors at every boot and mean nothing.
_DISK = r"(?P<subject>(?:nvme\d+(?:c\d+)?n\d+|sd[a-z]+|vd[a-z]+|xvd[a-z]+|dm-\d+|md\d+)(?:p?\d+)?)\b"
_NVME = r"nvme (?P<subject>nvme\d{1,3}): "
_LINES = (
    Line(
        fault="host.nvme_lost",
        pattern=re.compile(
            _NVME + r"(?:Disabling device after reset failure|Removing after probe failure|Device not ready; aborting"
            r"|Identify Controller failed)"
        ),
        severity=Severity.DEGRADED,
        remedy=Remedy.REBOOT,
    ),
    Line(
        fault="host.nvme_down",
        pattern=re.compile(
            _NVME + r"(?:controller is down; will reset|frozen state error detected|failed to (?:stop|start) queues)"
        ),
        severity=Severity.WARN,
    ),
    Line(
        fault="host.nvme_timeout",
        pattern=re.compile(
            _NVME
            + r"I/O (?:tag )?\d+ .{0,80}timeout, (?P<then>aborting|reset controller|completion polled|disable controller)"
        ),
        severity=Severity.WARN,
    ),
    Line(
        fault="host.disk_medium_error",
        pattern=re.compile(r"critical medium error, dev " + _DISK),
        severity=Severity.DEGRADED,
        remedy=Remedy.REPLACE,
    ),
    Line(
        fault="host.disk_io_error",
        pattern=re.compile(
            r"(?:^|: )I/O error, dev "
            + _DISK
            + r"|Buffer I/O error on dev(?:ice)? "
            + _DISK.replace("subject", "subject2")
        ),
        severity=Severity.WARN,
        subject="disk",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelNvmeThresholds:
    """When errors are more than a single sector's."""

    io_errors: int = 10
    """So many errors of one disk in what is judged at once are degraded: the kernel itself retries each command five times
    (nvme_core.max_retries), so a line is a failure that retries did not cure."""


@check(reads=KmsgSample, phases=Phase.PERIODIC | Phase.DEEP, lasting=True, thresholds=KernelNvmeThresholds)
def kernel_nvme(sample: KmsgSample, thresholds: KernelNvmeThresholds) -> Iterator[Finding]:
    """`host.nvme_lost` (degraded, reboot), `host.nvme_down` and `host.nvme_timeout` (warnings: the driver resets and goes
    on), `host.disk_medium_error` (degraded, replace), `host.disk_io_error` (a warning, degraded when there are many)."""
    for hit in hits(sample, ("nvme nvme", "I/O error", "critical medium error"), _LINES):
        if hit.line.fault == "host.disk_io_error" and len(hit.all) >= thresholds.io_errors:
            yield hit.finding(Severity.DEGRADED, Remedy.REBOOT, errors=len(hit.all))
        else:
            yield hit.finding()
