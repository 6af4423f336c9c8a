"""host_cpu_frequency: limits, governors and heat."""

from __future__ import annotations

import pytest

from nodewatch.checks._api import load_checks
from nodewatch.model.health import Remedy, Severity
from nodewatch.model.host_samples import CpuFrequencySample, CpuPolicy

Outline = list[tuple[str, Remedy]]


def judged(sample: CpuFrequencySample) -> Outline:
    findings = load_checks()["host_cpu_frequency"].run(sample)
    assert all((finding.severity, finding.subject) == (Severity.WARN, "cpu") for finding in findings)
    return [(finding.fault, finding.remedy) for finding in findings]


def policy(
    limit_khz: int | None = 3_500_000,
    maximum_khz: int | None = 3_500_000,
    governor: str = "performance",
    driver: str = "acpi-cpufreq",
) -> CpuPolicy:
    return CpuPolicy(cpu=0, limit_khz=limit_khz, maximum_khz=maximum_khz, governor=governor, driver=driver)


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (policy(), []),
        (policy(limit_khz=3_150_000), []),
        (policy(limit_khz=2_000_000), [("host.cpu_limited", Remedy.NONE)]),
        (policy(limit_khz=None), []),
        (policy(maximum_khz=None), []),
        (policy(governor="powersave"), [("config.cpu_governor", Remedy.HUMAN)]),
        (policy(governor="powersave", driver="intel_pstate"), []),
        (policy(governor="powersave", driver="amd-pstate-epp"), []),
        (policy(governor="powersave", driver=""), []),
        (policy(governor="schedutil"), []),
    ],
)
def test_policies(one: CpuPolicy, expected: Outline) -> None:
    assert judged(CpuFrequencySample(policies=(one, policy()))) == expected


@pytest.mark.parametrize(
    ("rise_ms", "interval_s", "expected"),
    [
        (None, None, []),
        (0, 300.0, []),
        (15_000, 300.0, []),
        (15_001, 300.0, [("host.cpu_throttled", Remedy.NONE)]),
    ],
)
def test_heat(rise_ms: int | None, interval_s: float | None, expected: Outline) -> None:
    sample = CpuFrequencySample(throttled_ms=99_999, throttled_rise_ms=rise_ms, interval_s=interval_s)
    assert judged(sample) == expected


def test_evidence_counts_the_processors() -> None:
    sample = CpuFrequencySample(policies=tuple(policy(limit_khz=1_000_000) for _ in range(20)))
    (finding,) = load_checks()["host_cpu_frequency"].run(sample)
    assert (finding.evidence["count"], len(finding.evidence["cpus"])) == (20, 8)
