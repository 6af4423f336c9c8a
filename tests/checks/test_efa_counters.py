"""efa_counters: rises between two readings, and what cannot be told from them."""

from __future__ import annotations

import pytest

from nodewatch.checks.efa_counters import Thresholds, efa_counters
from nodewatch.errors import SensorError
from nodewatch.model.fabric_samples import EfaSample, FabricDevice, FabricPort
from nodewatch.model.health import Finding, Severity

ZERO = {"rx_drops": 0, "cmds_err": 0, "no_completion_cmds": 0, "submitted_cmds": 9, "completed_cmds": 9}
OWN = ("cmds_err", "no_completion_cmds", "submitted_cmds", "completed_cmds")


def device(counters: dict[str, int], unreadable: tuple[str, ...] = ()) -> FabricDevice:
    port = {name: value for name, value in counters.items() if name not in OWN}
    own = {name: value for name, value in counters.items() if name in OWN}
    return FabricDevice(name="e", counters=own, ports=(FabricPort(number=1, counters=port, unreadable=unreadable),))


def judge(then: dict[str, int], now: dict[str, int], seconds: float = 60.0) -> list[Finding]:
    sample = EfaSample(devices=(device(ZERO | now),), previous=(device(ZERO | then),), interval_s=seconds)
    return list(efa_counters(sample, Thresholds()))


@pytest.mark.parametrize(
    ("now", "seconds", "expected"),
    [
        ({}, 60.0, []),
        ({"rx_drops": 1}, 60.0, [("efa.errors", "e rx_drops", Severity.WARN)]),
        ({"rx_drops": 90000}, 60.0, [("efa.errors", "e rx_drops", Severity.DEGRADED)]),
        ({"cmds_err": 1}, 60.0, [("efa.errors", "e cmds_err", Severity.WARN)]),
        ({"no_completion_cmds": 1}, 60.0, [("efa.errors", "e no_completion_cmds", Severity.DEGRADED)]),
        ({"submitted_cmds": 15}, 60.0, [("efa.admin_stalled", "e", Severity.DEGRADED)]),
        ({"submitted_cmds": 10}, 60.0, []),
        ({"submitted_cmds": 15, "completed_cmds": 15}, 60.0, []),
    ],
)
def test_rises(now: dict[str, int], seconds: float, expected: list[object]) -> None:
    findings = judge({}, now, seconds)
    assert [(f.fault, f.subject, f.severity) for f in findings] == expected
    assert all(f.evidence["seconds"] == seconds for f in findings)


def test_absolute_values_are_never_judged() -> None:
    high = device(ZERO | {"rx_drops": 10**12, "cmds_err": 10**9})
    assert list(efa_counters(EfaSample(devices=(high,)), Thresholds())) == []
    assert judge({"rx_drops": 10**12}, {"rx_drops": 10**12}) == []


def test_a_counter_that_went_back_is_unknown() -> None:
    with pytest.raises(SensorError, match="went back"):
        judge({"rx_drops": 5}, {"rx_drops": 2})
    # Another device's fault still counts.
    assert [f.fault for f in judge({"rx_drops": 5}, {"rx_drops": 2, "no_completion_cmds": 1})] == ["efa.errors"]


def test_a_device_that_is_new_has_no_rate() -> None:
    sample = EfaSample(devices=(device(ZERO),), previous=(), interval_s=60.0)
    assert list(efa_counters(sample, Thresholds())) == []
