"""GPUs that their own hardware slows down: heat, or the power supply's brake."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nodewatch.checks._api import Phase, check
from nodewatch.checks._gpu import before, each_gpu, gpu_finding, growth
from nodewatch.model.health import Finding, Remedy, Severity
from nodewatch.model.samples import Gpu, GpuSample


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuThrottleThresholds:
    """`share`: the part of the time between two readings in slowdown from which it is more than a warning.

    A choice, without a published figure: a tenth of the time costs a job about as much as a straggler that is worth replacing.
    """

    share: float = 0.1


@check(
    reads=GpuSample,
    phases=Phase.PROLOG | Phase.EPILOG | Phase.PERIODIC,
    every_s=10.0,
    thresholds=GpuThrottleThresholds,
)
def gpu_throttle(sample: GpuSample, thresholds: GpuThrottleThresholds) -> Iterator[Finding]:
    """`gpu.hw_thermal_slowdown`, `gpu.hw_power_brake` and, where the driver does not say which, `gpu.hw_slowdown`.

    The software power cap is how a GPU runs at full load, and idle is idle: neither is a finding. The driver's own thermal
    slowdown warns. The brake is pulled by the machine's power supply: no setting cures it, another machine does. With two
    readings and the driver's counters the share of the time decides, without them the state at the moment.
    """

    def judge(gpu: Gpu) -> Iterator[Finding]:
        reasons = gpu.clock_reasons or frozenset()
        old = before(sample, gpu)
        shown = {"clock_reasons": sorted(reasons), "temperature_c": gpu.temperature_c}
        named = False
        for reason, fault, remedy, now, then in (
            (
                "hw_thermal",
                "gpu.hw_thermal_slowdown",
                Remedy.HUMAN,
                gpu.hw_thermal_us,
                None if old is None else old.hw_thermal_us,
            ),
            (
                "hw_power_brake",
                "gpu.hw_power_brake",
                Remedy.REPLACE,
                gpu.hw_power_brake_us,
                None if old is None else old.hw_power_brake_us,
            ),
        ):
            grown = growth(now, then)
            share = None if grown is None or not sample.interval_s else min(1.0, grown / 1e6 / sample.interval_s)
            if reason not in reasons and not share:
                continue
            named = True
            is_long = share >= thresholds.share if share is not None else reason in reasons
            severity = Severity.DEGRADED if is_long else Severity.WARN
            shown_share = None if share is None else round(share, 4)
            yield gpu_finding(sample, gpu, fault, severity, remedy, **shown, share=shown_share)
        if "hw_slowdown" in reasons and not named:
            yield gpu_finding(sample, gpu, "gpu.hw_slowdown", Severity.DEGRADED, Remedy.HUMAN, **shown)
        if "sw_thermal" in reasons and not named:
            yield gpu_finding(sample, gpu, "gpu.sw_thermal_slowdown", Severity.WARN, Remedy.NONE, **shown)

    yield from each_gpu(sample, judge)
