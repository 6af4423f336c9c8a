"""Processors that may not run as fast as they could, or that heat holds back: every job here is slow, and nothing fails."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nodewatch.checks._api import Phase, check
from nodewatch.model.health import Finding, Remedy, Severity
from nodewatch.model.host_samples import CpuFrequencySample, CpuPolicy

_OWN_GOVERNORS = ("intel_pstate", "amd-pstate", "amd_pstate")
"""Drivers whose `powersave` raises the frequency with the load (kernel documentation, intel_pstate and amd-pstate)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostCpuFrequencyThresholds:
    """Shares from 0 to 1."""

    limit: float = 0.9
    """Of a processor's maximum. Ours: turning turbo off takes more, rounding by the firmware less."""
    throttled: float = 0.05
    """Of the time between two readings that heat held a processor back. Ours: moments of it are how it is meant to work."""


@check(
    reads=CpuFrequencySample, phases=Phase.PERIODIC | Phase.DEEP, every_s=300.0, thresholds=HostCpuFrequencyThresholds
)
def host_cpu_frequency(sample: CpuFrequencySample, thresholds: HostCpuFrequencyThresholds) -> Iterator[Finding]:
    """`host.cpu_limited`, `host.cpu_throttled` and `config.cpu_governor`, all warnings."""
    limited = [policy for policy in sample.policies if _is_limited(policy, thresholds.limit)]
    if limited:
        first = limited[0]
        evidence: dict[str, object] = {"limit_khz": first.limit_khz, "maximum_khz": first.maximum_khz}
        yield _finding("host.cpu_limited", limited, evidence, Remedy.NONE)
    slow = [policy for policy in sample.policies if _is_slow(policy)]
    if slow:
        evidence = {"governor": slow[0].governor, "driver": slow[0].driver}
        yield _finding("config.cpu_governor", slow, evidence, Remedy.HUMAN)
    rise, interval_s = sample.throttled_rise_ms, sample.interval_s
    if rise is not None and interval_s and rise / 1000 > thresholds.throttled * interval_s:
        yield Finding(
            fault="host.cpu_throttled",
            subject="cpu",
            severity=Severity.WARN,
            remedy=Remedy.NONE,
            evidence={"throttled_ms": rise, "interval_s": round(interval_s, 1), "source": "thermal_throttle"},
        )


def _is_limited(policy: CpuPolicy, share: float) -> bool:
    return bool(policy.limit_khz and policy.maximum_khz and policy.limit_khz < share * policy.maximum_khz)


def _is_slow(policy: CpuPolicy) -> bool:
    return policy.governor == "powersave" and bool(policy.driver) and not policy.driver.startswith(_OWN_GOVERNORS)


def _finding(fault: str, policies: list[CpuPolicy], evidence: dict[str, object], remedy: Remedy) -> Finding:
    return Finding(
        fault=fault,
        subject="cpu",
        severity=Severity.WARN,
        remedy=remedy,
        evidence={
            **evidence,
            "count": len(policies),
            "cpus": [policy.cpu for policy in policies[:8]],
            "source": "cpufreq",
        },
    )
