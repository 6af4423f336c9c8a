"""gpu_throttle: the hardware's slowdowns, never the power cap or idleness."""

from __future__ import annotations

import pytest

from nodewatch.errors import SensorError
from nodewatch.model.health import Remedy, Severity

from .gpus import Outline, gpu, judged, rated

THERMAL = ("gpu.hw_thermal_slowdown", Severity.DEGRADED, Remedy.HUMAN)
BRAKE = ("gpu.hw_power_brake", Severity.DEGRADED, Remedy.REPLACE)


@pytest.mark.parametrize(
    ("reasons", "expected"),
    [
        (None, []),
        (set(), []),
        ({"idle"}, []),
        ({"sw_power_cap"}, []),
        ({"applications_clocks_setting", "sync_boost"}, []),
        ({"hw_slowdown", "hw_thermal"}, [THERMAL]),
        ({"hw_slowdown", "hw_power_brake"}, [BRAKE]),
        ({"hw_thermal", "hw_power_brake"}, [THERMAL, BRAKE]),
        ({"hw_slowdown"}, [("gpu.hw_slowdown", Severity.DEGRADED, Remedy.HUMAN)]),
        ({"sw_thermal"}, [("gpu.sw_thermal_slowdown", Severity.WARN, Remedy.NONE)]),
    ],
)
def test_reasons(reasons: set[str] | None, expected: Outline) -> None:
    given = None if reasons is None else frozenset(reasons)
    assert judged("gpu_throttle", gpu(clock_reasons=given)) == expected


@pytest.mark.parametrize(
    ("slowed_s", "severity"), [(0.0, None), (1.0, Severity.WARN), (6.0, Severity.DEGRADED), (60.0, Severity.DEGRADED)]
)
def test_the_share_of_the_time_decides(slowed_s: float, severity: Severity | None) -> None:
    then, now = gpu(hw_thermal_us=500), gpu(hw_thermal_us=500 + int(slowed_s * 1e6))
    expected = [] if severity is None else [("gpu.hw_thermal_slowdown", severity, Remedy.HUMAN)]
    assert rated("gpu_throttle", then, now, 60.0) == expected


def test_a_moment_of_slowdown_in_a_long_time_warns() -> None:
    then = gpu(hw_power_brake_us=0)
    now = gpu(hw_power_brake_us=1000, clock_reasons=frozenset({"hw_power_brake"}))
    assert rated("gpu_throttle", then, now, 60.0) == [("gpu.hw_power_brake", Severity.WARN, Remedy.REPLACE)]


def test_what_cannot_be_seen_is_unknown() -> None:
    with pytest.raises(SensorError):
        judged("gpu_throttle", unreadable=((0, "Unknown Error"),))
    with pytest.raises(SensorError):
        judged("gpu_throttle", partial="half a picture")
