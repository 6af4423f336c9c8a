"""Fewer GPUs than the machine should have."""

from __future__ import annotations

from collections.abc import Iterator

from nodewatch.checks._api import Phase, check
from nodewatch.errors import SensorError
from nodewatch.model.health import Finding, Remedy, Severity
from nodewatch.model.samples import GpuSample


@check(reads=GpuSample, phases=Phase.PROLOG | Phase.EPILOG | Phase.PERIODIC | Phase.DEEP, every_s=5.0)
def gpu_count(sample: GpuSample) -> Iterator[Finding]:
    """`gpu.missing` when the driver knows fewer GPUs than expected; more than expected is no fault.

    A GPU that is counted and lost or unreadable is not missing: other checks judge it. Raises SensorError when nobody said
    how many there should be, since a count that nothing is held against proves nothing, and when not all could be counted.
    The remedy is a reboot, as on HyperPod (GPU count against instance type).
    """
    if sample.partial is not None:
        raise SensorError(f"{sample.source} does not count all GPUs: {sample.partial}")
    if sample.expected is None:
        raise SensorError("how many GPUs the machine should have is not known: set gpus or instance_type in agent.toml")
    seen = len(sample.gpus) + len(sample.unreadable)
    if seen < sample.expected:
        yield Finding(
            fault="gpu.missing",
            subject="gpus",
            severity=Severity.FATAL,
            remedy=Remedy.REBOOT,
            evidence={
                "expected": sample.expected,
                "seen": seen,
                "pci_bus_ids": [gpu.pci_bus_id for gpu in sample.gpus],
                "driver_version": sample.driver_version,
                "source": sample.source,
            },
        )
