"""efa_devices: counts by type, and devices that are gone."""

from __future__ import annotations

import pytest

from nodewatch.checks.efa_devices import Thresholds, efa_devices
from nodewatch.model.fabric_samples import EfaSample, FabricDevice
from nodewatch.model.health import Remedy, Severity


def devices(count: int) -> tuple[FabricDevice, ...]:
    return tuple(FabricDevice(name=f"rdmap{number}s27") for number in range(count))


@pytest.mark.parametrize(
    ("seen", "expected", "configured", "severity"),
    [
        (32, 32, 0, None),
        (33, 32, 0, None),
        (31, 32, 0, Severity.DEGRADED),
        (0, 32, 0, Severity.FATAL),
        (1, None, 0, None),
        (16, 32, 16, None),
        (15, None, 16, Severity.DEGRADED),
    ],
)
def test_count(seen: int, expected: int | None, configured: int, severity: Severity | None) -> None:
    sample = EfaSample(devices=devices(seen), expected=expected)
    findings = list(efa_devices(sample, Thresholds(expected=configured)))
    assert [(f.fault, f.severity, f.remedy) for f in findings] == (
        [] if severity is None else [("efa.device_missing", severity, Remedy.REBOOT)]
    )
    assert all(f.evidence["seen"] == seen for f in findings)


def test_a_device_that_was_there_is_gone() -> None:
    sample = EfaSample(devices=devices(3), previous=devices(4), interval_s=60.0)
    (finding,) = efa_devices(sample, Thresholds())
    assert (finding.fault, finding.subject, finding.severity) == ("efa.device_gone", "rdmap3s27", Severity.FATAL)
