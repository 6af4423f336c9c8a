"""GPUs at or near the temperature at which they slow down or switch off."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nodewatch.checks._api import Phase, check
from nodewatch.checks._gpu import each_gpu, gpu_finding
from nodewatch.model.health import Finding, Remedy, Severity
from nodewatch.model.samples import Gpu, GpuSample


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuTemperatureThresholds:
    """`concern_c`: from here on it warns even if the device allows more (AWS: 88 degrees and above is a concern)."""

    concern_c: int = 88


@check(
    reads=GpuSample,
    phases=Phase.PROLOG | Phase.EPILOG | Phase.PERIODIC,
    every_s=10.0,
    thresholds=GpuTemperatureThresholds,
)
def gpu_temperature(sample: GpuSample, thresholds: GpuTemperatureThresholds) -> Iterator[Finding]:
    """`gpu.temperature_shutdown` (fatal), `gpu.temperature_slowdown` (degraded), or a warning below the device's own limits.

    The limits are the device's, as degrees or, on newer ones, as a margin that shrinks to zero and below (T.Limit). A person
    looks at cooling; a GPU at the limit where it switches off is worth another machine.
    """

    def judge(gpu: Gpu) -> Iterator[Finding]:
        evidence = {
            "temperature_c": gpu.temperature_c,
            "slowdown_at_c": gpu.slowdown_at_c,
            "shutdown_at_c": gpu.shutdown_at_c,
            "margin_c": gpu.temperature_margin_c,
            "memory_temperature_c": gpu.memory_temperature_c,
            "memory_max_c": gpu.memory_max_c,
        }
        degrees = gpu.temperature_c
        if _reaches(degrees, gpu.shutdown_at_c) or _is_below(gpu.temperature_margin_c, gpu.shutdown_margin_c):
            yield gpu_finding(sample, gpu, "gpu.temperature_shutdown", Severity.FATAL, Remedy.REPLACE, **evidence)
        elif _reaches(degrees, gpu.slowdown_at_c) or _is_below(gpu.temperature_margin_c, gpu.slowdown_margin_c):
            yield gpu_finding(sample, gpu, "gpu.temperature_slowdown", Severity.DEGRADED, Remedy.HUMAN, **evidence)
        elif _reaches(degrees, thresholds.concern_c) or _reaches(gpu.memory_temperature_c, gpu.memory_max_c):
            yield gpu_finding(sample, gpu, "gpu.temperature_high", Severity.WARN, Remedy.HUMAN, **evidence)

    yield from each_gpu(sample, judge)


def _reaches(value: int | None, limit: int | None) -> bool:
    # A limit of 0 is a device's way not to tell one.
    return value is not None and limit is not None and limit > 0 and value >= limit


def _is_below(margin: int | None, limit: int | None) -> bool:
    return margin is not None and limit is not None and margin <= limit
