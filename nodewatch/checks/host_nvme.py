"""NVMe disks that the kernel gave up, or that say of themselves that they fail or wear out.

The health log's critical warnings are the device's own words. A disk of the machine (instance store) is only cured by another
machine; one that is a volume somewhere else (EBS) by a person.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nodewatch.checks._api import Phase, check
from nodewatch.model.health import Finding, Remedy, Severity
from nodewatch.model.host_samples import NvmeDevice, NvmeSample

_SPARE, _HOT, _UNRELIABLE, _READ_ONLY, _BACKUP, _MEMORY = (1 << bit for bit in range(6))
_REMOTE = "Amazon Elastic Block Store"
"""The model that an EBS volume tells (Amazon EBS User Guide, map EBS volumes to NVMe device names)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostNvmeThresholds:
    """When wear is worth a word."""

    used_percent: int = 100
    """100: the life that the maker reckons with is over (NVM Express Base Specification, percentage used)."""


@check(reads=NvmeSample, phases=Phase.PERIODIC | Phase.DEEP, every_s=600.0, thresholds=HostNvmeThresholds)
def host_nvme(sample: NvmeSample, thresholds: HostNvmeThresholds) -> Iterator[Finding]:
    """`host.nvme_dead` (degraded, reboot), `host.nvme_failing` (degraded, replace), and as warnings `host.nvme_warning`,
    `host.nvme_worn` and `host.nvme_media_errors` (errors that are new since the reading before).

    A device without a health log, as some virtual ones are, is judged by the kernel's word alone.
    """
    before = {device.name: device for device in sample.previous or ()}
    for device in sample.devices:
        yield from _device(device, before.get(device.name), thresholds)


def _device(device: NvmeDevice, old: NvmeDevice | None, thresholds: HostNvmeThresholds) -> Iterator[Finding]:
    if device.state == "dead":
        yield _finding(device, "host.nvme_dead", Severity.DEGRADED, Remedy.REBOOT)
    warning = device.critical_warning or 0
    if warning & (_UNRELIABLE | _READ_ONLY):
        remedy = Remedy.HUMAN if device.model.startswith(_REMOTE) else Remedy.REPLACE
        yield _finding(device, "host.nvme_failing", Severity.DEGRADED, remedy)
    elif warning & (_SPARE | _HOT | _BACKUP | _MEMORY):
        yield _finding(device, "host.nvme_warning", Severity.WARN, Remedy.NONE)
    if device.used_percent is not None and device.used_percent >= thresholds.used_percent:
        yield _finding(device, "host.nvme_worn", Severity.WARN, Remedy.NONE)
    if old is not None and device.media_errors is not None and old.media_errors is not None:
        rise = device.media_errors - old.media_errors
        if rise > 0:
            yield _finding(device, "host.nvme_media_errors", Severity.WARN, Remedy.NONE, rise=rise)


def _finding(device: NvmeDevice, fault: str, severity: Severity, remedy: Remedy, **more: int) -> Finding:
    return Finding(
        fault=fault,
        subject=device.name,
        severity=severity,
        remedy=remedy,
        evidence={
            "model": device.model,
            "state": device.state,
            "critical_warning": device.critical_warning,
            "temperature_c": device.temperature_c,
            "spare_percent": device.spare_percent,
            "used_percent": device.used_percent,
            "media_errors": device.media_errors,
            **more,
            "source": "NVMe health log",
        },
    )
