"""neuron_devices: the count against the type."""

from __future__ import annotations

import pytest

from nodewatch.checks.neuron_devices import neuron_devices
from nodewatch.errors import SensorError
from nodewatch.model.cloud_samples import NeuronSample
from nodewatch.model.health import Remedy, Severity


@pytest.mark.parametrize(
    ("count", "expected", "is_missing"),
    [
        (16, 16, False),
        (17, 16, False),
        (15, 16, True),
        (0, 1, True),
        (3, None, False),
        (None, 16, False),
        (0, 0, False),
    ],
)
def test_count(count: int | None, expected: int | None, is_missing: bool) -> None:
    findings = list(neuron_devices(NeuronSample(count=count, expected=expected)))
    assert [(f.fault, f.severity, f.remedy) for f in findings] == (
        [("neuron.missing", Severity.FATAL, Remedy.REBOOT)] if is_missing else []
    )
    assert all((f.evidence["seen"], f.evidence["expected"]) == (count, expected) for f in findings)


def test_none_where_none_is_expected_by_nobody_is_unknown() -> None:
    with pytest.raises(SensorError):
        list(neuron_devices(NeuronSample(count=0)))
