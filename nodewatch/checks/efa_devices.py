"""EFA devices that are missing, or that were there and are gone.

A device may be missing because the machine was launched with fewer, so a few missing ones drain and do not kill. None
at all where there should be some means that the driver is not loaded or the cards are gone: no job across machines can
run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nodewatch.checks._api import Phase, check
from nodewatch.model.fabric_samples import EfaSample
from nodewatch.model.health import Finding, Remedy, Severity


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """`expected` above 0 takes the place of what the instance type should have: for machines launched with fewer."""

    expected: int = 0


@check(reads=EfaSample, phases=Phase.PROLOG | Phase.PERIODIC | Phase.DEEP, every_s=30.0, thresholds=Thresholds)
def efa_devices(sample: EfaSample, thresholds: Thresholds) -> Iterator[Finding]:
    """`efa.device_missing` by count, `efa.device_gone` by name; more devices than expected are no fault.

    The counts are those of knowledge/instance_types.toml. p5en brings its devices up late after a boot: a few readings
    may pass.
    """
    names = sorted(device.name for device in sample.devices)
    expected = thresholds.expected or sample.expected or 0
    if len(names) < expected:
        yield Finding(
            fault="efa.device_missing",
            subject="efa",
            severity=Severity.DEGRADED if names else Severity.FATAL,
            remedy=Remedy.REBOOT,
            evidence={"expected": expected, "seen": len(names), "devices": names, "source": "/sys/class/infiniband"},
        )
    for device in sample.previous or ():
        if device.name not in names:
            yield Finding(
                fault="efa.device_gone",
                subject=device.name,
                severity=Severity.FATAL,
                remedy=Remedy.REBOOT,
                evidence={
                    "seconds": sample.interval_s,
                    "seen": len(names),
                    "devices": names,
                    "source": "/sys/class/infiniband",
                },
            )
