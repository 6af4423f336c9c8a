"""MIG modes that wait for a reset."""

from __future__ import annotations

from collections.abc import Iterator

from nodewatch.checks._api import Phase, check
from nodewatch.checks._gpu import each_gpu, gpu_finding
from nodewatch.model.health import Finding, Remedy, Severity
from nodewatch.model.samples import Gpu, GpuSample


@check(reads=GpuSample, phases=Phase.PERIODIC, every_s=60.0)
def gpu_mig(sample: GpuSample) -> Iterator[Finding]:
    """`config.mig_pending`, a warning: the mode was changed and takes effect at a reset.

    MIG itself is no fault, and what it switches off (NVLink) is judged by nobody while it is on.
    """

    def judge(gpu: Gpu) -> Iterator[Finding]:
        if gpu.mig_enabled is not None and gpu.mig_pending is not None and gpu.mig_enabled != gpu.mig_pending:
            modes = {"current": gpu.mig_enabled, "pending": gpu.mig_pending}
            yield gpu_finding(sample, gpu, "config.mig_pending", Severity.WARN, Remedy.RESET_GPU, **modes)

    yield from each_gpu(sample, judge)
