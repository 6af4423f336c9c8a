"""ECC errors of GPU memory and of the caches and registers (SRAM)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nodewatch.checks._api import Phase, check
from nodewatch.checks._gpu import before, each_gpu, gpu_finding, growth
from nodewatch.model.gpu_samples import EccCounts
from nodewatch.model.health import Finding, Remedy, Severity
from nodewatch.model.samples import Gpu, GpuSample

_DAY_S = 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuEccThresholds:
    """`correctable_per_day`: more is a warning (AWS: 100 a day is a reason to drain; NVIDIA gives no limit).

    `correctable_at_least`: fewer between two readings are no rate (DCGM's limit of single-bit errors: 10).
    """

    correctable_per_day: float = 100.0
    correctable_at_least: int = 10


@check(
    reads=GpuSample,
    phases=Phase.PROLOG | Phase.EPILOG | Phase.PERIODIC | Phase.DEEP,
    every_s=10.0,
    thresholds=GpuEccThresholds,
)
def gpu_ecc(sample: GpuSample, thresholds: GpuEccThresholds) -> Iterator[Finding]:
    """`gpu.ecc_uncorrectable`, `gpu.ecc_sram_threshold` (replace: NVIDIA's mark for a return), and what warns.

    Uncorrectable since the last reset: fatal and a reset, as Xid 48, where the driver cannot contain it or it was in SRAM;
    degraded where it was in memory whose rows can be remapped, since the driver contains that to one process (Xid 94). Errors
    of the GPU's whole life are history: memory errors were remapped or retired and are information, SRAM errors below
    NVIDIA's threshold warn. AWS drains for any uncorrectable error; NVIDIA resets, and returns a board for a failed remap or
    the threshold alone: we follow NVIDIA, since the ladder replaces what comes back. Correctable errors only warn, by rate.
    """

    def judge(gpu: Gpu) -> Iterator[Finding]:
        volatile = gpu.ecc_volatile or EccCounts()
        aggregate = gpu.ecc_aggregate or EccCounts()
        counts = {
            "volatile_uncorrectable": volatile.uncorrectable,
            "volatile_sram_uncorrectable": volatile.sram_uncorrectable,
            "volatile_dram_uncorrectable": volatile.dram_uncorrectable,
            "volatile_correctable": volatile.correctable,
            "aggregate_uncorrectable": aggregate.uncorrectable,
            "aggregate_sram_uncorrectable": aggregate.sram_uncorrectable,
            "aggregate_correctable": aggregate.correctable,
        }
        if gpu.sram_threshold_exceeded:
            yield gpu_finding(sample, gpu, "gpu.ecc_sram_threshold", Severity.FATAL, Remedy.REPLACE, **counts)
        if volatile.uncorrectable:
            in_memory = volatile.dram_uncorrectable == volatile.uncorrectable and gpu.remap_failed is not None
            severity = Severity.DEGRADED if in_memory else Severity.FATAL
            yield gpu_finding(sample, gpu, "gpu.ecc_uncorrectable", severity, Remedy.RESET_GPU, **counts)
        elif aggregate.sram_uncorrectable and not gpu.sram_threshold_exceeded:
            yield gpu_finding(sample, gpu, "gpu.ecc_sram_history", Severity.WARN, Remedy.NONE, **counts)
        elif aggregate.uncorrectable and not gpu.sram_threshold_exceeded:
            yield gpu_finding(sample, gpu, "gpu.ecc_history", Severity.INFO, Remedy.NONE, **counts)
        if gpu.repair_pending:
            yield gpu_finding(sample, gpu, "gpu.repair_pending", Severity.DEGRADED, Remedy.RESET_GPU, **counts)
        old = before(sample, gpu)
        if old is not None and sample.interval_s:
            grown = growth(volatile.correctable, (old.ecc_volatile or EccCounts()).correctable) or 0
            per_day = grown * _DAY_S / sample.interval_s
            if grown >= thresholds.correctable_at_least and per_day > thresholds.correctable_per_day:
                rate = {"grown_by": grown, "interval_s": sample.interval_s, "per_day": round(per_day, 1)}
                yield gpu_finding(sample, gpu, "gpu.ecc_correctable_rate", Severity.WARN, Remedy.NONE, **counts, **rate)

    yield from each_gpu(sample, judge)
