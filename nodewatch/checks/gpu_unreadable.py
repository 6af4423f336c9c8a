"""GPUs whose values the driver fails to read, which is something else than not offering them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nodewatch.checks._api import Phase, check
from nodewatch.checks._gpu import each_gpu, gpu_finding
from nodewatch.model.health import Finding, Remedy, Severity
from nodewatch.model.samples import Gpu, GpuSample


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuUnreadableThresholds:
    """`fields`: from how many failed values on the GPU is taken for unwell; a choice.

    A GPU whose firmware stopped answering fails most of its values at once, a single one is a sensor or a bug of the driver.
    """

    fields: int = 3


@check(
    reads=GpuSample,
    phases=Phase.PROLOG | Phase.EPILOG | Phase.PERIODIC | Phase.DEEP,
    every_s=10.0,
    thresholds=GpuUnreadableThresholds,
)
def gpu_unreadable(sample: GpuSample, thresholds: GpuUnreadableThresholds) -> Iterator[Finding]:
    """`gpu.unreadable` for each GPU with values that read `Unknown Error` or `ERR!`: degraded for several, else a warning."""

    def judge(gpu: Gpu) -> Iterator[Finding]:
        if gpu.failed_fields:
            severity = Severity.DEGRADED if len(gpu.failed_fields) >= thresholds.fields else Severity.WARN
            remedy = Remedy.RESET_GPU if severity is Severity.DEGRADED else Remedy.HUMAN
            fields = list(gpu.failed_fields[:20])
            yield gpu_finding(sample, gpu, "gpu.unreadable", severity, remedy, failed_fields=fields)

    yield from each_gpu(sample, judge)
