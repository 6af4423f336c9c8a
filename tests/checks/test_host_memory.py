"""host_memory: what is missing and what is low."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewatch.checks.host_memory import HostMemoryThresholds, host_memory
from nodewatch.model.host_samples import HostSample

GIB = 1 << 30


def judge(total: float, available: float, instance_type: str = "", **thresholds: float) -> list[tuple[str, str, str]]:
    sample = HostSample(
        memory_bytes=int(total * GIB), available_bytes=int(available * GIB), cpus_online=2, instance_type=instance_type
    )
    found = host_memory(sample, HostMemoryThresholds(**thresholds))
    return [(finding.fault, finding.severity.word, finding.remedy.word) for finding in found]


@pytest.mark.parametrize(
    ("total", "available", "instance_type", "expected"),
    [
        (1999, 1800, "p5.48xlarge", []),
        (1800, 1700, "p5.48xlarge", [("host.memory_missing", "degraded", "reboot")]),
        (4, 3, "", []),
        (4, 3, "x9.unheard", []),
        (4, 0.05, "", [("host.memory_low", "warn", "none")]),
        (1000, 1, "p5.48xlarge", [("host.memory_missing", "degraded", "reboot"), ("host.memory_low", "warn", "none")]),
        (0, 0, "", []),
    ],
)
def test_memory(total: float, available: float, instance_type: str, expected: list[tuple[str, str, str]]) -> None:
    assert judge(total, available, instance_type) == expected


def test_a_site_changes_the_shares() -> None:
    assert judge(1800, 1700, "p5.48xlarge", missing_below=0.5) == []
    with pytest.raises(ValueError, match="share"):
        HostMemoryThresholds(low_below=5)


@given(st.integers(0, 2**50), st.integers(0, 2**50), st.sampled_from(["", "p5.48xlarge", "?"]))
def test_no_numbers_raise(total: int, available: int, instance_type: str) -> None:
    sample = HostSample(memory_bytes=total, available_bytes=available, cpus_online=0, instance_type=instance_type)
    list(host_memory(sample, HostMemoryThresholds()))
