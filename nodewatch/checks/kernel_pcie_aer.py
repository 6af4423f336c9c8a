"""PCIe errors: those that the link corrected, and those that it could not (AER, DPC)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from nodewatch.checks._api import Phase, check
from nodewatch.checks._kernel import Line, hits, most_within
from nodewatch.model.health import Finding, Remedy, Severity
from nodewatch.model.samples import KmsgSample

_DEVICE = r"(?P<subject>[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f])"
_LINES = (
    Line(
        fault="host.pcie_fatal",
        pattern=re.compile(
            rf"{_DEVICE}: (?:PCIe Bus Error: severity=Uncorrect(?:ed|able) \(Fatal\)|DPC: unmasked uncorrectable)"
        ),
        severity=Severity.DEGRADED,
        remedy=Remedy.REBOOT,
    ),
    Line(
        fault="host.pcie_not_recovered",
        pattern=re.compile(rf"{_DEVICE}: (?:AER: )?[Dd]evice recovery failed"),
        severity=Severity.DEGRADED,
        remedy=Remedy.REBOOT,
    ),
    Line(
        fault="host.pcie_nonfatal",
        pattern=re.compile(rf"{_DEVICE}: PCIe Bus Error: severity=Uncorrect(?:ed|able) \(Non-Fatal\)"),
        severity=Severity.WARN,
    ),
    Line(
        fault="host.pcie_corrected",
        pattern=re.compile(rf"{_DEVICE}: PCIe Bus Error: severity=Correct(?:ed|able)"),
        severity=Severity.INFO,
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelPcieAerThresholds:
    """When corrected errors are a link that is going bad."""

    corrected_per_minute: int = 60
    """So many a minute on one device are a warning. DCGM's own limit for replays is about one a minute and lane (field notes
    3.2); the kernel's ratelimit lets at most 10 lines in 5 s through, 120 a minute."""


@check(reads=KmsgSample, phases=Phase.PERIODIC, lasting=True, thresholds=KernelPcieAerThresholds)
def kernel_pcie_aer(sample: KmsgSample, thresholds: KernelPcieAerThresholds) -> Iterator[Finding]:
    """`host.pcie_fatal` and `host.pcie_not_recovered` on the device (degraded, reboot), `host.pcie_nonfatal` (a warning),
    `host.pcie_corrected` (information; a warning at a high rate)."""
    for hit in hits(sample, ("PCIe Bus Error", "evice recovery failed", "DPC: "), _LINES):
        if hit.line.fault == "host.pcie_corrected":
            rate = most_within(hit.all, 60.0)
            many = (rate or 0) >= thresholds.corrected_per_minute
            yield hit.finding(Severity.WARN if many else Severity.INFO, errors_per_minute=rate)
        else:
            yield hit.finding()
