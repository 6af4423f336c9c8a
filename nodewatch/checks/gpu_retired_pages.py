"""GPU memory pages that were retired, on devices before row remapping."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nodewatch.checks._api import Phase, check
from nodewatch.checks._gpu import each_gpu, gpu_finding
from nodewatch.model.health import Finding, Remedy, Severity
from nodewatch.model.samples import Gpu, GpuSample


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuRetiredPagesThresholds:
    """Pages in the GPU's life: `replace_at` (DCGM's hard limit 63, the table has 64 places), `warn_at` (its soft limit 15)."""

    replace_at: int = 63
    warn_at: int = 15


@check(
    reads=GpuSample,
    phases=Phase.PROLOG | Phase.EPILOG | Phase.PERIODIC | Phase.DEEP,
    every_s=30.0,
    thresholds=GpuRetiredPagesThresholds,
)
def gpu_retired_pages(sample: GpuSample, thresholds: GpuRetiredPagesThresholds) -> Iterator[Finding]:
    """`gpu.retired_pages_limit` (replace), `gpu.page_retirement_pending` (reset), and a warning when many are retired.

    A page that is retired is out of use and no fault. A pending one is still in use until the next reset.
    """

    def judge(gpu: Gpu) -> Iterator[Finding]:
        pages = (gpu.retired_single_bit or 0) + (gpu.retired_double_bit or 0)
        evidence = {"single_bit": gpu.retired_single_bit, "double_bit": gpu.retired_double_bit, "pages": pages}
        if gpu.retirement_pending:
            yield gpu_finding(
                sample, gpu, "gpu.page_retirement_pending", Severity.DEGRADED, Remedy.RESET_GPU, **evidence
            )
        if pages >= thresholds.replace_at:
            yield gpu_finding(sample, gpu, "gpu.retired_pages_limit", Severity.FATAL, Remedy.REPLACE, **evidence)
        elif pages >= thresholds.warn_at:
            yield gpu_finding(sample, gpu, "gpu.retired_pages", Severity.WARN, Remedy.HUMAN, **evidence)

    yield from each_gpu(sample, judge)
