"""GPUs without persistence mode: the driver unloads between jobs, and DCGM's diagnostic refuses to run."""

from __future__ import annotations

from collections.abc import Iterator

from nodewatch.checks._api import Phase, check
from nodewatch.checks._gpu import each_gpu, gpu_finding
from nodewatch.model.health import Finding, Remedy, Severity
from nodewatch.model.samples import Gpu, GpuSample


@check(reads=GpuSample, phases=Phase.PERIODIC, every_s=300.0)
def gpu_persistence(sample: GpuSample) -> Iterator[Finding]:
    """`config.persistence_mode`, a warning: a setting (start nvidia-persistenced), never the hardware.

    Graded as hardware it drains every node of a fleet whose image lacks the service.
    """

    def judge(gpu: Gpu) -> Iterator[Finding]:
        if gpu.persistence is False:
            yield gpu_finding(
                sample, gpu, "config.persistence_mode", Severity.WARN, Remedy.RESTART_SERVICE, persistence="off"
            )

    yield from each_gpu(sample, judge)
