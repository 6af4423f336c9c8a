"""neuron_execution: hardware errors alone, by period or by rise."""

from __future__ import annotations

import pytest

from nodewatch.checks.neuron_execution import neuron_execution
from nodewatch.model.cloud_samples import NeuronDevice, NeuronSample
from nodewatch.model.health import Severity


def test_of_a_period() -> None:
    assert list(neuron_execution(NeuronSample(runtime_errors={"numerical": 9, "hardware": 0}))) == []
    (finding,) = neuron_execution(NeuronSample(runtime_errors={"hardware": 2}))
    assert (finding.subject, finding.severity, finding.evidence["hardware"]) == ("neuron", Severity.DEGRADED, 2)


@pytest.mark.parametrize(
    ("then", "now", "severity"),
    [(None, 0, None), (None, 3, Severity.WARN), (3, 3, None), (3, 4, Severity.DEGRADED), (3, 1, Severity.WARN)],
)
def test_since_the_driver_was_loaded(then: int | None, now: int, severity: Severity | None) -> None:
    def devices(count: int) -> tuple[NeuronDevice, ...]:
        return (NeuronDevice(index=0, executions={"hw_error": count}),)

    sample = NeuronSample(devices=devices(now), previous=None if then is None else devices(then))
    assert [f.severity for f in neuron_execution(sample)] == ([] if severity is None else [severity])
