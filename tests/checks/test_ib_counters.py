"""ib_counters: rates with a source each, counters that are full, went back or vanished."""

from __future__ import annotations

import pytest

from nodewatch.checks.ib_counters import Thresholds, ib_counters
from nodewatch.errors import SensorError
from nodewatch.model.fabric_samples import FabricDevice, FabricPort, IbSample
from nodewatch.model.health import Finding, Severity


def judge(then: dict[str, int], now: dict[str, int], seconds: float = 60.0) -> list[Finding]:
    def devices(counters: dict[str, int]) -> tuple[FabricDevice, ...]:
        return (FabricDevice(name="mlx5_0", ports=(FabricPort(number=1, counters=counters),)),)

    return list(ib_counters(IbSample(devices=devices(now), previous=devices(then), interval_s=seconds), Thresholds()))


@pytest.mark.parametrize(
    ("name", "rise", "severity"),
    [
        ("symbol_error", 1, None),
        ("symbol_error", 30, Severity.WARN),
        ("symbol_error", 900, Severity.DEGRADED),
        ("link_error_recovery", 5, None),
        ("link_error_recovery", 6, Severity.DEGRADED),
        ("link_downed", 1, Severity.DEGRADED),
        ("port_rcv_errors", 600, None),
        ("port_rcv_errors", 601, Severity.DEGRADED),
        ("port_xmit_discards", 6001, Severity.WARN),
        ("local_link_integrity_errors", 1, Severity.DEGRADED),
        ("excessive_buffer_overrun_errors", 1, Severity.DEGRADED),
        ("rnr_nak_retry_err", 1, Severity.WARN),
        ("local_ack_timeout_err", 61, Severity.WARN),
        ("port_rcv_data", 10**9, None),
    ],
)
def test_rises(name: str, rise: int, severity: Severity | None) -> None:
    findings = judge({name: 1000}, {name: 1000 + rise})
    assert [f.severity for f in findings] == ([] if severity is None else [severity])
    for finding in findings:
        assert (finding.fault, finding.subject) == ("ib.errors", f"mlx5_0 port 1 {name}")
        assert (finding.evidence["rise"], finding.evidence["seconds"]) == (rise, 60.0)


def test_a_full_counter_is_noted() -> None:
    assert [(f.fault, f.severity) for f in judge({"symbol_error": 65535}, {"symbol_error": 65535})] == [
        ("ib.counter_full", Severity.INFO)
    ]


def test_back_or_vanished_is_unknown() -> None:
    for now in ({"link_downed": 0}, {}):
        with pytest.raises(SensorError):
            judge({"link_downed": 3}, now)


def test_without_an_earlier_reading_nothing_is_judged() -> None:
    ports = (FabricPort(number=1, counters={"link_downed": 200, "symbol_error": 65535}),)
    assert list(ib_counters(IbSample(devices=(FabricDevice(name="mlx5_0", ports=ports),)), Thresholds())) == []
