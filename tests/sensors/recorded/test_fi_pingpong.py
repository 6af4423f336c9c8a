"""Output of fi_pingpong: tables, both ends in one file, errors, and what is none of its output."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nodewatch.checks.efa_pingpong import Thresholds, efa_pingpong
from nodewatch.errors import SensorError
from nodewatch.model.fabric_samples import FiPingpongSample
from nodewatch.sensors.recorded._api import Recording
from nodewatch.sensors.recorded.fi_pingpong import load

HEADER = "bytes   #sent   #ack     total       time     MB/sec    usec/xfer   Mxfers/sec\n"
TABLE = HEADER + (
    "64      10      =10      1.2k        0.03s      0.05    1362.35       0.00\n"
    "4k      1k      =1k      7.8m        0.02s    217.29      18.85       0.05\n"
    "1m      10      =10      20m         0.01s   2359.00     444.50       0.00\n"
)


def read(tmp_path: Path, data: str | bytes) -> FiPingpongSample:
    path = tmp_path / "out.txt"
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    (sample,) = load(Recording(path=path))
    return sample


def judge(tmp_path: Path, data: str | bytes) -> list[str]:
    return [finding.fault for finding in efa_pingpong(read(tmp_path, data), Thresholds())]


def test_a_table(tmp_path: Path) -> None:
    sample = read(tmp_path, "Starting server...\nStarting client...\n" + TABLE)
    assert [(row.size, row.bandwidth, row.latency_us) for row in sample.rows] == [
        (64, 0.05, 1362.35),
        (4096, 217.29, 18.85),
        (1 << 20, 2359.0, 444.5),
    ]
    assert judge(tmp_path, TABLE + "Client Log:\n" + TABLE + "fi_pingpong: SUCCESS!\n") == []


def test_the_log_of_libfabric_is_no_failure_of_a_run_that_measured(tmp_path: Path) -> None:
    log = "libfabric:7:1767225600::efa:core:efa_x():12<warn> optional library not found\n"
    assert judge(tmp_path, log + TABLE) == []
    assert judge(tmp_path, log) == ["efa.pingpong_failed"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("fi_getinfo(): util/pingpong.c:1589, ret=-61 (No data available)\n", ["efa.no_provider"]),
        ("connect(): util/pingpong.c:420, ret=-111 (Connection refused)\n", ["efa.pingpong_failed"]),
        ("connect: Connection timed out\n", ["efa.pingpong_failed"]),
        (HEADER + "fi_cq_sread(): util/pingpong.c:900, ret=-110 (Connection timed out)\n", ["efa.pingpong_failed"]),
        (TABLE + "fi_mr_reg(): util/pingpong.c:1100, ret=-12 (Cannot allocate memory)\n", ["efa.memlock"]),
        (TABLE.replace("=1k", "-900"), ["efa.messages_lost"]),
    ],
)
def test_failures(tmp_path: Path, text: str, expected: list[str]) -> None:
    assert judge(tmp_path, text) == expected


ROWS = [f"{size}   10   =10   1k   0.00s   1.00   2.00   0.00\n" for size in ("64", "256", "1k", "4k", "64k", "1m")]


@pytest.mark.parametrize("count", [1, 4, 6])
def test_tables_that_may_end_there(tmp_path: Path, count: int) -> None:
    one = HEADER + "".join(ROWS[:count])
    assert (judge(tmp_path, one), judge(tmp_path, one + one)) == ([], [])


@pytest.mark.parametrize("count", [2, 3, 5])
def test_a_table_without_its_last_rows_is_never_good(tmp_path: Path, count: int) -> None:
    for text in (HEADER + "".join(ROWS[:count]), HEADER + "".join(ROWS) + HEADER + "".join(ROWS[:count])):
        with pytest.raises(SensorError):
            judge(tmp_path, text)


@pytest.mark.parametrize(
    "text", ["", "hello\n", HEADER, HEADER[:30], TABLE[:-30], TABLE.replace("2359.00", "nan"), "PASS\n"]
)
def test_what_is_no_whole_table_is_never_good(tmp_path: Path, text: str) -> None:
    with pytest.raises(SensorError):
        judge(tmp_path, text)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200), st.integers(0, len(TABLE)))
def test_only_sensor_errors_are_raised(tmp_path: Path, data: bytes, cut: int) -> None:
    try:
        judge(tmp_path, TABLE[:cut].encode() + data)
    except SensorError:
        return
    assert cut > len(HEADER) or b"fi_" in data
