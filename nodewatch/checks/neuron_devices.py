"""Fewer Neuron devices than the instance type has."""

from __future__ import annotations

from collections.abc import Iterator

from nodewatch.checks._api import Phase, check
from nodewatch.errors import SensorError
from nodewatch.model.cloud_samples import NeuronSample
from nodewatch.model.health import Finding, Remedy, Severity


@check(reads=NeuronSample, phases=Phase.PROLOG | Phase.PERIODIC | Phase.DEEP, every_s=30.0)
def neuron_devices(sample: NeuronSample) -> Iterator[Finding]:
    """`neuron.missing`; more than expected is no fault. The remedy is a reboot, as for a GPU that is missing.

    Raises SensorError when there is no device and nobody knows how many there should be.
    """
    if sample.count is None:
        return
    if sample.count < (sample.expected or 0):
        yield Finding(
            fault="neuron.missing",
            subject="neuron",
            severity=Severity.FATAL,
            remedy=Remedy.REBOOT,
            evidence={
                "expected": sample.expected,
                "seen": sample.count,
                "devices": [device.index for device in sample.devices],
                "said": sample.said,
                "source": sample.source,
            },
        )
    elif sample.count == 0 and sample.expected is None:
        raise SensorError(
            "there is no Neuron device, and how many there should be is not known: name the instance type"
        )
