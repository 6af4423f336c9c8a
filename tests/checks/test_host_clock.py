"""host_clock: who keeps it, and how far off it may be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewatch.checks.host_clock import HostClockThresholds, host_clock
from nodewatch.model.host_samples import ClockSample


def judge(is_synchronised: bool, max_error_s: float, uptime_s: float = 1e6) -> list[tuple[str, str, str]]:
    sample = ClockSample(is_synchronised=is_synchronised, max_error_s=max_error_s, uptime_s=uptime_s)
    found = host_clock(sample, HostClockThresholds())
    return [(finding.fault, finding.severity.word, finding.remedy.word) for finding in found]


BAD = [("host.clock_unsynchronised", "warn", "restart_service")]


@pytest.mark.parametrize(
    ("is_synchronised", "max_error_s", "uptime_s", "expected"),
    [
        (True, 0.002, 1e6, []),
        (False, 16.0, 1e6, BAD),
        (True, 3.0, 1e6, BAD),
        (False, 16.0, 100.0, []),
    ],
)
def test_the_clock(
    is_synchronised: bool, max_error_s: float, uptime_s: float, expected: list[tuple[str, str, str]]
) -> None:
    assert judge(is_synchronised, max_error_s, uptime_s) == expected


@given(st.booleans(), st.floats(0, 1e12), st.floats(0, 1e12))
def test_no_numbers_raise(is_synchronised: bool, max_error_s: float, uptime_s: float) -> None:
    judge(is_synchronised, max_error_s, uptime_s)
