"""GPUs whose InfoROM, where the board keeps its identity and error history, is corrupt."""

from __future__ import annotations

from collections.abc import Iterator

from nodewatch.checks._api import Phase, check
from nodewatch.checks._gpu import each_gpu, gpu_finding
from nodewatch.model.health import Finding, Remedy, Severity
from nodewatch.model.samples import Gpu, GpuSample


@check(reads=GpuSample, phases=Phase.PERIODIC | Phase.DEEP, every_s=300.0)
def gpu_inforom(sample: GpuSample) -> Iterator[Finding]:
    """`gpu.inforom_corrupt`, a warning: the GPU computes as before, but its retired rows are no longer written down.

    DCGM's health watch warns of it as well; a person decides whether the board goes back.
    """

    def judge(gpu: Gpu) -> Iterator[Finding]:
        if gpu.inforom_corrupt:
            yield gpu_finding(sample, gpu, "gpu.inforom_corrupt", Severity.WARN, Remedy.HUMAN)

    yield from each_gpu(sample, judge)
