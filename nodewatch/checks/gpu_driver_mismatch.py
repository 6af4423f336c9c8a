"""A driver library of another release than the kernel module that is loaded."""

from __future__ import annotations

from collections.abc import Iterator

from nodewatch.checks._api import Phase, check
from nodewatch.errors import SensorError
from nodewatch.model.health import Finding, Remedy, Severity
from nodewatch.model.samples import GpuSample


@check(reads=GpuSample, phases=Phase.PERIODIC | Phase.DEEP, every_s=60.0)
def gpu_driver_mismatch(sample: GpuSample) -> Iterator[Finding]:
    """`config.driver_mismatch`, a warning: a package was upgraded under a running driver.

    The remedy is a reboot: the old module can only be unloaded when nothing uses any GPU, and a service restart does not do
    that. It is configuration, on every node that was upgraded alike, and drains none.
    """
    if sample.version_mismatch is not None:
        yield Finding(
            fault="config.driver_mismatch",
            subject="driver",
            severity=Severity.WARN,
            remedy=Remedy.REBOOT,
            evidence={
                "said": sample.version_mismatch,
                "driver_version": sample.driver_version,
                "source": sample.source,
            },
        )
    elif sample.partial is not None:
        raise SensorError(f"{sample.source} does not show the driver: {sample.partial}")
