"""NVLinks that are down, fewer than the instance type has, or in error."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nodewatch.checks._api import Phase, check
from nodewatch.checks._gpu import before, each_gpu, gpu_finding, growth
from nodewatch.model.health import Finding, Remedy, Severity
from nodewatch.model.samples import Gpu, GpuSample


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuNvlinkThresholds:
    """`crc_per_second`: more is a fault (DCGM's limit: 100 CRC errors a second)."""

    crc_per_second: float = 100.0


@check(
    reads=GpuSample,
    phases=Phase.PROLOG | Phase.EPILOG | Phase.PERIODIC | Phase.DEEP,
    every_s=30.0,
    thresholds=GpuNvlinkThresholds,
)
def gpu_nvlink(sample: GpuSample, thresholds: GpuNvlinkThresholds) -> Iterator[Finding]:
    """`gpu.nvlink_down` (degraded, as Xid 74; fatal when all are down) and `gpu.nvlink_errors`.

    Without an instance type a link is down when others of the same GPU are up. A reset trains the links anew. Replays and
    recoveries are corrected and warn from the first (DCGM's limit is 1); CRC errors are judged by rate. With MIG the links are
    off on purpose. A GPU that tells nothing of links is left out.
    """

    def judge(gpu: Gpu) -> Iterator[Finding]:
        if gpu.mig_enabled or gpu.nvlinks_active is None:
            return
        expected = sample.nvlinks_expected
        if expected is None:
            expected = gpu.nvlinks_active + len(gpu.nvlinks_inactive) if gpu.nvlinks_active else 0
        evidence = {"active": gpu.nvlinks_active, "expected": expected, "inactive": list(gpu.nvlinks_inactive)}
        if gpu.nvlinks_active < expected:
            severity = Severity.DEGRADED if gpu.nvlinks_active else Severity.FATAL
            yield gpu_finding(sample, gpu, "gpu.nvlink_down", severity, Remedy.RESET_GPU, **evidence)
        old = before(sample, gpu)
        if old is None or not sample.interval_s:
            return
        crc = growth(gpu.nvlink_crc_errors, old.nvlink_crc_errors) or 0
        replays = growth(gpu.nvlink_replays, old.nvlink_replays) or 0
        recoveries = growth(gpu.nvlink_recoveries, old.nvlink_recoveries) or 0
        is_many = crc / sample.interval_s > thresholds.crc_per_second
        if is_many or replays or recoveries:
            severity = Severity.DEGRADED if is_many else Severity.WARN
            remedy = Remedy.RESET_GPU if is_many else Remedy.NONE
            grown = {"crc": crc, "replays": replays, "recoveries": recoveries, "interval_s": sample.interval_s}
            yield gpu_finding(sample, gpu, "gpu.nvlink_errors", severity, remedy, **evidence, **grown)

    yield from each_gpu(sample, judge)
