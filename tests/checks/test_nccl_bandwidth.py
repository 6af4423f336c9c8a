"""nccl_bandwidth: the largest size against the type's floor, never the average."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nodewatch.checks.nccl_bandwidth import Thresholds, nccl_bandwidth
from nodewatch.errors import SensorError
from nodewatch.model.fabric_samples import NcclRow, NcclRun, NcclSample
from nodewatch.model.health import Finding, Remedy, Severity

GIB = 1 << 30
WELL = ((1024, 0.5), (GIB, 442.0), (16 * GIB, 483.0))


def run(
    rows: tuple[tuple[int, float], ...] = WELL, hosts: tuple[str, ...] = ("n1",), ranks: int | None = None
) -> NcclRun:
    return NcclRun(
        collective="all_reduce",
        ranks=8 * len(hosts) if ranks is None else ranks,
        hosts=hosts,
        rows=tuple(NcclRow(size=size, out_of_place=speed + 1, in_place=speed) for size, speed in rows),
        out_of_bounds=0,
        is_finished=True,
    )


def judge(item: NcclRun, instance_type: str = "p5.48xlarge", thresholds: Thresholds | None = None) -> list[Finding]:
    return list(nccl_bandwidth(NcclSample(runs=(item,), instance_type=instance_type), thresholds or Thresholds()))


@pytest.mark.parametrize(
    ("rows", "slow_at"),
    [
        (WELL, None),
        (((GIB, 442.0), (16 * GIB, 300.0)), 16 * GIB),
        (((GIB, 200.0), (16 * GIB, 483.0)), GIB),
        (((GIB, 442.0), (32 * GIB, 300.0)), 32 * GIB),  # no floor of its own: that of the next smaller size
        (((1024, 0.5),), None),  # nothing is known of so small a size
    ],
)
def test_one_machine(rows: tuple[tuple[int, float], ...], slow_at: int | None) -> None:
    findings = judge(run(rows))
    assert [f.evidence["bytes"] for f in findings] == ([] if slow_at is None else [slow_at])
    for finding in findings:
        assert (finding.fault, finding.severity, finding.remedy) == ("nccl.slow", Severity.DEGRADED, Remedy.REBOOT)
        assert finding.subject == "n1" and finding.evidence["busbw_gbps"] < finding.evidence["floor_gbps"]


@pytest.mark.parametrize(
    ("instance_type", "rows", "severity"),
    [
        # Eight H100 with NCCL_ALGO=RING, as NVIDIA's developers and users measured them.
        ("p5.48xlarge", ((2 * GIB, 367.0), (4 * GIB, 368.4)), Severity.WARN),
        ("p5.48xlarge", ((GIB // 8, 311.3), (GIB, 349.4), (8 * GIB, 362.2)), Severity.WARN),
        ("p5.48xlarge", ((GIB // 8, 382.3), (GIB, 464.7), (4 * GIB, 473.6)), None),
        ("p5.48xlarge", ((GIB // 8, 330.0),), None),
        ("p5.48xlarge", ((GIB // 8, 200.0),), Severity.DEGRADED),
        ("p6-b200.48xlarge", ((GIB, 729.2), (16 * GIB, 845.4)), None),
        ("p6-b300.48xlarge", ((16 * GIB, 695.0),), None),
        ("p6-b300.48xlarge", ((16 * GIB, 450.0),), Severity.DEGRADED),
        # No switch of an A100 sums: there is nothing between well and slow.
        ("p4d.24xlarge", ((GIB, 230.8),), None),
        ("p4d.24xlarge", ((GIB, 190.0),), Severity.DEGRADED),
        ("p4d.24xlarge", ((GIB // 8, 150.0),), None),
    ],
)
def test_without_the_switches_sums_it_warns(
    instance_type: str, rows: tuple[tuple[int, float], ...], severity: Severity | None
) -> None:
    found = [finding.severity for finding in judge(run(rows), instance_type)]
    assert found == ([] if severity is None else [severity])


def test_without_a_type_nothing_is_expected() -> None:
    assert judge(run(((GIB, 1.0),)), "") == []
    assert judge(run(((GIB, 1.0),)), "unheard.of") == []
    assert [f.fault for f in judge(run(((GIB, 1.0),)), "", Thresholds(floor_gbps=100.0))] == ["nccl.slow"]


def test_several_machines() -> None:
    two = ("n1", "n2")
    assert judge(run(((16 * GIB, 480.0),), two)) == []
    (finding,) = judge(run(((16 * GIB, 200.0),), two))
    assert (finding.fault, finding.severity, finding.remedy) == ("nccl.slow_between", Severity.DEGRADED, Remedy.HUMAN)
    assert finding.evidence["hosts"] == ["n1", "n2"]
    assert judge(run(((16 * GIB, 20.0),), ("n1", "n2", "n3"))) == []
    assert judge(run(((16 * GIB, 20.0),), two), "p5en.48xlarge") == []


def test_fewer_gpus_are_noted_and_not_held_against_all_of_them() -> None:
    (finding,) = judge(run(((16 * GIB, 100.0),), ranks=2))
    assert (finding.fault, finding.severity, finding.evidence["ranks"]) == ("nccl.fewer_gpus", Severity.WARN, 2)


def test_what_cannot_be_judged_is_unknown() -> None:
    well = run()
    assert judge(replace(well, collective="all_gather")) == []
    for broken in (replace(well, is_finished=False), replace(well, unreadable=("x",)), replace(well, rows=())):
        with pytest.raises(SensorError):
            judge(broken)
    assert judge(replace(well, hosts=(), ranks=None)) == []
    with pytest.raises(SensorError):
        judge(replace(run(((16 * GIB, 100.0),)), hosts=(), ranks=None))


def test_cycles_over_the_sizes_are_judged_by_their_median() -> None:
    assert judge(run(((GIB, 442.0), (GIB, 100.0), (GIB, 441.0)))) == []
