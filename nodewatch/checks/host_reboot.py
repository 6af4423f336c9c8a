"""Boots that nobody asked for: the machine came back without its agent having been told to stop."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nodewatch.checks._api import Phase, check
from nodewatch.model.health import Finding, Remedy, Severity
from nodewatch.model.host_samples import BootSample


@dataclass(frozen=True, slots=True, kw_only=True)
class HostRebootThresholds:
    """When boots stop being an accident."""

    warn_at: int = 2
    """So many in 24 hours are a warning. One is what a hard reset by EC2 or an operator looks like as well."""


@check(reads=BootSample, phases=Phase.PERIODIC, every_s=300.0, thresholds=HostRebootThresholds)
def host_reboot(sample: BootSample, thresholds: HostRebootThresholds) -> Iterator[Finding]:
    """`host.reboot_unexpected`: information, a warning when it happens again within a day."""
    if sample.previous_boot_id is None or sample.previous_was_clean is not False:
        return
    again = sample.unclean_in_a_day >= thresholds.warn_at
    yield Finding(
        fault="host.reboot_unexpected",
        subject="machine",
        severity=Severity.WARN if again else Severity.INFO,
        remedy=Remedy.NONE,
        evidence={"previous_boot_id": sample.previous_boot_id, "in_a_day": sample.unclean_in_a_day},
    )
