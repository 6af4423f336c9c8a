"""efa_devices: counts by type, devices that are gone, and devices that may still come."""

from __future__ import annotations

import pytest

from nodewatch.checks.efa_devices import efa_devices
from nodewatch.errors import SensorError
from nodewatch.model.fabric_samples import EfaSample, FabricDevice
from nodewatch.model.health import Remedy, Severity


def devices(count: int) -> tuple[FabricDevice, ...]:
    return tuple(FabricDevice(name=f"rdmap{number}s27") for number in range(count))


@pytest.mark.parametrize(
    ("seen", "expected", "severity"),
    [
        (32, 32, None),
        (33, 32, None),
        (31, 32, Severity.DEGRADED),
        (0, 32, Severity.FATAL),
        (1, None, None),
        (0, 0, None),
    ],
)
def test_count(seen: int, expected: int | None, severity: Severity | None) -> None:
    findings = list(efa_devices(EfaSample(devices=devices(seen), expected=expected)))
    assert [(f.fault, f.severity, f.remedy) for f in findings] == (
        [] if severity is None else [("efa.device_missing", severity, Remedy.REBOOT)]
    )
    assert all(f.evidence["seen"] == seen for f in findings)


def test_a_device_that_was_there_is_gone() -> None:
    sample = EfaSample(devices=devices(3), previous=devices(4), interval_s=60.0)
    (finding,) = efa_devices(sample)
    assert (finding.fault, finding.subject, finding.severity) == ("efa.device_gone", "rdmap3s27", Severity.FATAL)


def test_soon_after_a_boot_missing_ones_may_still_come() -> None:
    with pytest.raises(SensorError, match="12 of 16"):
        list(efa_devices(EfaSample(devices=devices(12), expected=16, settles_in_s=5.0)))
    assert list(efa_devices(EfaSample(devices=devices(16), expected=16, settles_in_s=5.0))) == []


def test_a_device_that_was_there_is_gone_however_soon_after_the_boot() -> None:
    sample = EfaSample(devices=devices(3), expected=4, previous=devices(4), settles_in_s=5.0)
    assert [finding.fault for finding in efa_devices(sample)] == ["efa.device_gone"]
