"""efa_pingpong: symptoms named as such, and no number judged that nobody published."""

from __future__ import annotations

import pytest

from nodewatch.checks.efa_pingpong import Thresholds, efa_pingpong
from nodewatch.errors import SensorError
from nodewatch.model.fabric_samples import FiPingpongSample, PingpongRow
from nodewatch.model.health import Severity

ROWS = (
    PingpongRow(size=64, bandwidth=1.3, latency_us=49.4),
    PingpongRow(size=1 << 20, bandwidth=2359.0, latency_us=444.5),
)


def test_no_number_is_judged_unless_a_site_says_so() -> None:
    sample = FiPingpongSample(rows=ROWS)
    assert list(efa_pingpong(sample, Thresholds())) == []
    for thresholds in (Thresholds(least_mb_per_s=5000.0), Thresholds(most_us=10.0)):
        (finding,) = efa_pingpong(sample, thresholds)
        assert (finding.fault, finding.evidence["mb_per_s"], finding.evidence["latency_us"]) == (
            "efa.pingpong_slow",
            2359.0,
            49.4,
        )


@pytest.mark.parametrize(
    ("error", "fault", "severity", "word"),
    [
        ("fi_getinfo(): ret=-61 (No data available)", "efa.no_provider", Severity.DEGRADED, "libfabric"),
        ("connect: Connection timed out", "efa.pingpong_failed", Severity.DEGRADED, "security group"),
        (
            "libfabric:efa: Unresponsive remote (unreachable)",
            "efa.pingpong_failed",
            Severity.DEGRADED,
            "security group",
        ),
        ("connect: Connection refused", "efa.pingpong_failed", Severity.WARN, "not listening"),
        ("fi_mr_reg(): ret=-12 (Cannot allocate memory)", "efa.memlock", Severity.WARN, "locked memory"),
    ],
)
def test_symptoms(error: str, fault: str, severity: Severity, word: str) -> None:
    (finding,) = efa_pingpong(FiPingpongSample(rows=(), errors=(error,)), Thresholds())
    assert (finding.fault, finding.severity) == (fault, severity)
    assert word in finding.evidence["means"] and finding.evidence["said"] == [error]


def test_messages_that_were_lost() -> None:
    lost = PingpongRow(size=64, bandwidth=1.0, latency_us=1.0, all_acknowledged=False)
    assert [f.fault for f in efa_pingpong(FiPingpongSample(rows=(lost,)), Thresholds())] == ["efa.messages_lost"]


def test_a_table_that_is_not_whole_is_unknown() -> None:
    for sample in (FiPingpongSample(rows=ROWS, incomplete="x"), FiPingpongSample(rows=())):
        with pytest.raises(SensorError):
            list(efa_pingpong(sample, Thresholds()))
