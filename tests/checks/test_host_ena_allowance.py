"""host_ena_allowance: which rises of which counter are worth a word."""

from __future__ import annotations

import pytest

from nodewatch.checks.host_ena_allowance import HostEnaAllowanceThresholds, host_ena_allowance
from nodewatch.errors import SensorError
from nodewatch.model.network_samples import EnaInterface, EnaSample


def sample(then: dict[str, int], now: dict[str, int], seconds: float = 60.0) -> EnaSample:
    return EnaSample(
        interfaces=(EnaInterface(name="eth0", operstate="up", allowances=now),),
        previous=(EnaInterface(name="eth0", operstate="up", allowances=then),),
        interval_s=seconds,
    )


@pytest.mark.parametrize(
    ("counter", "then", "now", "remedy"),
    [
        ("bw_in_allowance_exceeded", 0, 6000, None),
        ("bw_in_allowance_exceeded", 0, 6001, "none"),
        ("bw_out_allowance_exceeded", 1_000_000, 1_060_000, "none"),
        ("bw_out_allowance_exceeded", 1_000_000, 1_000_000, None),
        ("pps_allowance_exceeded", 5, 100_005, "none"),
        ("conntrack_allowance_exceeded", 0, 1, "human"),
        ("linklocal_allowance_exceeded", 7, 9, "human"),
        # The device was reset and counts from 0 again.
        ("linklocal_allowance_exceeded", 900, 3, None),
        ("bw_in_allowance_exceeded", 10**9, 0, None),
        # Room that is left, and not an allowance that was exceeded.
        ("conntrack_allowance_available", 0, 136_812, None),
    ],
)
def test_rises(counter: str, then: int, now: int, remedy: str | None) -> None:
    found = list(host_ena_allowance(sample({counter: then}, {counter: now}), HostEnaAllowanceThresholds()))
    assert [(f.fault, f.subject, f.severity.word, f.remedy.word) for f in found] == (
        [] if remedy is None else [("host.ena_allowance", f"eth0 {counter}", "warn", remedy)]
    )
    assert all(f.evidence["rise"] == now - then and "AWS" in f.evidence["source"] for f in found)


def test_one_reading_is_no_rate() -> None:
    only = EnaSample(interfaces=sample({}, {"linklocal_allowance_exceeded": 9}).interfaces)
    assert list(host_ena_allowance(only, HostEnaAllowanceThresholds())) == []


def test_a_counter_or_an_interface_that_is_new_has_no_rise() -> None:
    new = sample({}, {"linklocal_allowance_exceeded": 9})
    assert list(host_ena_allowance(new, HostEnaAllowanceThresholds())) == []
    other = EnaSample(interfaces=new.interfaces, previous=(EnaInterface(name="eth1"),), interval_s=60.0)
    assert list(host_ena_allowance(other, HostEnaAllowanceThresholds())) == []


def test_a_driver_without_counters_is_no_finding_and_one_that_lost_them_is_unknown() -> None:
    assert list(host_ena_allowance(sample({}, {}), HostEnaAllowanceThresholds())) == []
    with pytest.raises(SensorError, match="eth0"):
        list(host_ena_allowance(sample({"pps_allowance_exceeded": 1}, {}), HostEnaAllowanceThresholds()))
