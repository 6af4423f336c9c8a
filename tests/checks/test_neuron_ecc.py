"""neuron_ecc: uncorrected, repairable, and counters that are not there."""

from __future__ import annotations

import pytest

from nodewatch.checks.neuron_ecc import neuron_ecc
from nodewatch.errors import SensorError
from nodewatch.model.cloud_samples import NeuronDevice, NeuronSample
from nodewatch.model.health import Remedy, Severity

ZERO = {"sram_ecc_uncorrected": 0, "mem_ecc_uncorrected": 0}
LOST = ("neuron.ecc_uncorrected", Severity.FATAL, Remedy.REPLACE)


def sample(counters: dict[str, int], unreadable: tuple[str, ...] = (), source: str = "sysfs") -> NeuronSample:
    return NeuronSample(devices=(NeuronDevice(index=3, ecc=counters, unreadable=unreadable),), source=source)


@pytest.mark.parametrize(
    ("counters", "expected"),
    [
        ({}, []),
        ({"mem_ecc_corrected": 90}, []),
        ({"sram_ecc_uncorrected": 1}, [LOST]),
        ({"mem_ecc_uncorrected": 1}, [LOST]),
        ({"mem_ecc_repairable_uncorrected": 1}, [("neuron.ecc_repairable", Severity.DEGRADED, Remedy.REBOOT)]),
    ],
)
def test_counters(counters: dict[str, int], expected: list[object]) -> None:
    findings = list(neuron_ecc(sample(ZERO | counters)))
    assert [(f.fault, f.severity, f.remedy) for f in findings] == expected
    assert all(f.evidence["device"] == 3 and f.evidence["value"] == 1 for f in findings)


def test_counters_that_are_not_there_are_unknown() -> None:
    for broken in (sample({}), sample(ZERO, ("mem_ecc_repairable_uncorrected",))):
        with pytest.raises(SensorError):
            list(neuron_ecc(broken))
    assert list(neuron_ecc(sample({}, source="neuron-ls"))) == []
