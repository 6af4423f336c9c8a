"""host_cpus: what is missing and what is offline."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewatch.checks.host_cpus import host_cpus
from nodewatch.model.host_samples import HostSample


def judge(
    online: int, present: int | None, instance_type: str = "", *, is_smt_off: bool = False
) -> list[tuple[str, str]]:
    sample = HostSample(
        memory_bytes=1,
        available_bytes=1,
        cpus_online=online,
        cpus_present=present,
        is_smt_off=is_smt_off,
        instance_type=instance_type,
    )
    return [(finding.fault, finding.severity.word) for finding in host_cpus(sample)]


@pytest.mark.parametrize(
    ("online", "present", "instance_type", "is_smt_off", "expected"),
    [
        (192, 192, "p5.48xlarge", False, []),
        (96, 96, "p5.48xlarge", False, []),
        (190, 192, "p5.48xlarge", False, [("host.cpus_missing", "degraded")]),
        (2, 2, "", False, []),
        (2, 2, "x9.unheard", False, []),
        (3, 4, "", False, [("host.cpus_offline", "warn")]),
        (2, 4, "", True, []),
        (2, None, "", False, []),
    ],
)
def test_processors(
    online: int, present: int | None, instance_type: str, is_smt_off: bool, expected: list[tuple[str, str]]
) -> None:
    assert judge(online, present, instance_type, is_smt_off=is_smt_off) == expected


@given(st.integers(0, 4096), st.integers(0, 4096))
def test_no_numbers_raise(online: int, present: int) -> None:
    judge(online, present, "p5.48xlarge")
