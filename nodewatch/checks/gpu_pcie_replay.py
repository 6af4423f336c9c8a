"""GPUs whose PCIe link sends too much of its traffic again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nodewatch.checks._api import Phase, check
from nodewatch.checks._gpu import before, each_gpu, gpu_finding, growth
from nodewatch.model.health import Finding, Remedy, Severity
from nodewatch.model.samples import Gpu, GpuSample


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuPcieReplayThresholds:
    """Replays a minute and lane that are still normal, by generation (DCGM's limits), and `warn_per_minute` for a GPU.

    `warn_per_minute` is what DCGM's health watch warns at: more than 8 replays a minute.
    """

    per_minute_and_lane_gen3: float = 0.48
    per_minute_and_lane_gen4: float = 0.96
    per_minute_and_lane_gen5: float = 1.92
    warn_per_minute: float = 8.0


@check(reads=GpuSample, phases=Phase.PERIODIC | Phase.EPILOG, every_s=60.0, thresholds=GpuPcieReplayThresholds)
def gpu_pcie_replay(sample: GpuSample, thresholds: GpuPcieReplayThresholds) -> Iterator[Finding]:
    """`gpu.pcie_replays` by rate, never by the count: it goes on since the driver was loaded.

    Above DCGM's limit for the link it is degraded (a reboot trains the link anew), above what DCGM's health watch warns at it
    warns. Replays are corrected, no data is lost. Without an earlier reading nothing is judged.
    """

    def judge(gpu: Gpu) -> Iterator[Finding]:
        old = before(sample, gpu)
        grown = None if old is None else growth(gpu.pcie_replays, old.pcie_replays)
        if not grown or not sample.interval_s:
            return
        per_minute = grown * 60.0 / sample.interval_s
        lane = {
            3: thresholds.per_minute_and_lane_gen3,
            4: thresholds.per_minute_and_lane_gen4,
        }.get(gpu.pcie_generation or 5, thresholds.per_minute_and_lane_gen5)
        limit = lane * (gpu.pcie_width or 16)
        if per_minute <= min(limit, thresholds.warn_per_minute):
            return
        severity = Severity.DEGRADED if per_minute > limit else Severity.WARN
        yield gpu_finding(
            sample,
            gpu,
            "gpu.pcie_replays",
            severity,
            Remedy.REBOOT,
            per_minute=round(per_minute, 2),
            limit_per_minute=round(limit, 2),
            replays=gpu.pcie_replays,
            interval_s=sample.interval_s,
        )

    yield from each_gpu(sample, judge)
