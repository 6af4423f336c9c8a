"""GPU memory rows whose remapping waits for a reset, failed, or has used up its spares."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nodewatch.checks._api import Phase, check
from nodewatch.checks._gpu import each_gpu, gpu_finding
from nodewatch.model.health import Finding, Remedy, Severity
from nodewatch.model.samples import Gpu, GpuSample


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuRowRemapThresholds:
    """`max_uncorrectable`: rows remapped for uncorrectable errors that a GPU can have in its life (NVIDIA: 512)."""

    max_uncorrectable: int = 512


@check(
    reads=GpuSample,
    phases=Phase.PROLOG | Phase.EPILOG | Phase.PERIODIC | Phase.DEEP,
    every_s=30.0,
    thresholds=GpuRowRemapThresholds,
)
def gpu_row_remap(sample: GpuSample, thresholds: GpuRowRemapThresholds) -> Iterator[Finding]:
    """`gpu.row_remap_failed` (replace: NVIDIA's mark for a return of the board) and `gpu.row_remap_pending` (reset).

    A pending remap was recorded and takes effect at the next reset: running jobs may finish. A GPU at the limit of remapped
    rows is `gpu.row_remap_exhausted` (replace), one with a bank that has no spare row left warns: its next error cannot be
    remapped. Rows that were remapped are no fault, that is what the spares are for. A GPU that offers no row remapping is left
    out. Raises SensorError when a GPU cannot be described and no other has a finding.
    """

    def judge(gpu: Gpu) -> Iterator[Finding]:
        banks = gpu.remap_banks
        evidence = {
            "remapped_correctable": gpu.remapped_correctable,
            "remapped_uncorrectable": gpu.remapped_uncorrectable,
            "banks": None
            if banks is None
            else dict(zip(("max", "high", "partial", "low", "none"), banks, strict=True)),
        }
        if gpu.remap_failed:
            yield gpu_finding(sample, gpu, "gpu.row_remap_failed", Severity.FATAL, Remedy.REPLACE, **evidence)
        elif gpu.remap_pending:
            yield gpu_finding(sample, gpu, "gpu.row_remap_pending", Severity.DEGRADED, Remedy.RESET_GPU, **evidence)
        if (gpu.remapped_uncorrectable or 0) >= thresholds.max_uncorrectable:
            yield gpu_finding(sample, gpu, "gpu.row_remap_exhausted", Severity.FATAL, Remedy.REPLACE, **evidence)
        elif banks is not None and banks[4] > 0 and not gpu.remap_failed:
            yield gpu_finding(sample, gpu, "gpu.row_remap_no_spare", Severity.WARN, Remedy.HUMAN, **evidence)

    yield from each_gpu(sample, judge)
