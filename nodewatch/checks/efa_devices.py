"""EFA devices that are missing, or that were there and are gone.

A device may be missing because the machine was launched with fewer (`efa_devices` in agent.toml says so), so a few
missing ones drain and do not kill. None at all where there should be some means that the driver is not loaded or the
cards are gone: no job across machines can run.
"""

from __future__ import annotations

from collections.abc import Iterator

from nodewatch.checks._api import Phase, check
from nodewatch.errors import SensorError
from nodewatch.model.fabric_samples import EfaSample
from nodewatch.model.health import Finding, Remedy, Severity


@check(reads=EfaSample, phases=Phase.PROLOG | Phase.PERIODIC | Phase.DEEP, every_s=30.0)
def efa_devices(sample: EfaSample) -> Iterator[Finding]:
    """`efa.device_missing` by count, `efa.device_gone` by name; more devices than expected are no fault.

    The counts are those of knowledge/instance_types.toml. p5en brings its devices up late after a boot (field notes 3.4):
    raises SensorError while missing ones may still come and none is gone.
    """
    names = sorted(device.name for device in sample.devices)
    gone = [device.name for device in sample.previous or () if device.name not in names]
    expected = sample.expected or 0
    if len(names) < expected and sample.settles_in_s <= 0:
        yield Finding(
            fault="efa.device_missing",
            subject="efa",
            severity=Severity.DEGRADED if names else Severity.FATAL,
            remedy=Remedy.REBOOT,
            evidence={"expected": expected, "seen": len(names), "devices": names, "source": "/sys/class/infiniband"},
        )
    for name in gone:
        yield Finding(
            fault="efa.device_gone",
            subject=name,
            severity=Severity.FATAL,
            remedy=Remedy.REBOOT,
            evidence={
                "seconds": sample.interval_s,
                "seen": len(names),
                "devices": names,
                "source": "/sys/class/infiniband",
            },
        )
    if len(names) < expected and sample.settles_in_s > 0 and not gone:
        raise SensorError(
            f"{len(names)} of {expected} EFA devices are there so soon after the boot: the others may still come"
        )
