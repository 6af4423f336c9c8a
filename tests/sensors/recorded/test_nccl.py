"""Output of nccl-tests: builds old and new, several runs, JSON, and what a run leaves that did not end."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nodewatch.checks.nccl_bandwidth import Thresholds, nccl_bandwidth
from nodewatch.checks.nccl_run import nccl_run
from nodewatch.checks.nccl_wrong import nccl_wrong
from nodewatch.errors import SensorError
from nodewatch.model.fabric_samples import NcclSample
from nodewatch.model.health import Finding
from nodewatch.sensors.recorded._api import Recording
from nodewatch.sensors.recorded.nccl import load

GIB = 1 << 30
HALF = "    time   algbw   busbw  #wrong"
HEADER = f"#       size         count      type   redop    root {HALF} {HALF}"
ROWS = ((8, 0.01), (134217728, 390.1), (GIB, 441.7), (16 * GIB, 483.2))


def devices(hosts: Sequence[str], gpus: int = 8) -> str:
    lines = []
    for rank in range(len(hosts) * gpus):
        host, device = hosts[rank // gpus], rank % gpus
        lines.append(
            f"#  Rank {rank:2d} Group  0 Pid {41000 + rank} on {host:>10s} device {device:2d} [0000:{device:02x}:00] H100"
        )
    return "\n".join(lines)


def table(rows: Sequence[tuple[int, float]] = ROWS, wrong: str = "0") -> str:
    lines = [
        "#                                                              out-of-place                       in-place",
        HEADER,
        "#        (B)    (elements)                               (us)  (GB/s)  (GB/s)             (us)  (GB/s)  (GB/s)",
    ]
    for size, speed in rows:
        half = f"{size / 1e6 + 20.5:9.2f} {speed / 1.75:7.2f} {speed:7.2f}"
        lines.append(f"{size:12d} {size // 4:13d}     float     sum      -1 {half} {wrong:>7s} {half} {wrong:>7s}")
    return "\n".join(lines)


def footer(out_of_bounds: str = "0 OK") -> str:
    return f"# Out of bounds values : {out_of_bounds}\n# Avg bus bandwidth    : 156.742 \n#\n"


def run(
    hosts: Sequence[str] = ("n1",), rows: Sequence[tuple[int, float]] = ROWS, wrong: str = "0", gpus: int = 8
) -> str:
    return (
        "# nccl-tests version 2.17.1 nccl-headers=22703 nccl-library=22703\n"
        "# Collective test starting: all_reduce_perf\n"
        "# nThread 1 nGpus 1 minBytes 8 maxBytes 17179869184 step: 2(factor) warmup iters: 5 iters: 20 agg iters: 1\n#\n"
        f"# Using devices\n{devices(hosts, gpus)}\n#\n{table(rows, wrong)}\n{footer('0 OK' if wrong in '0N/A' else '5 FAILED')}"
    )


def read(tmp_path: Path, data: str | bytes, instance_type: str = "") -> NcclSample:
    path = tmp_path / "out.txt"
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    (sample,) = load(Recording(path=path, instance_type=instance_type))
    return sample


def judged(sample: NcclSample) -> Iterator[Finding]:
    yield from nccl_run(sample)
    yield from nccl_wrong(sample)
    yield from nccl_bandwidth(sample, Thresholds())


def test_a_run_of_a_new_build(tmp_path: Path) -> None:
    sample = read(tmp_path, run(), "p5.48xlarge")
    (only,) = sample.runs
    assert (only.collective, only.ranks, only.hosts, only.out_of_bounds) == ("all_reduce", 8, ("n1",), 0)
    assert only.is_finished and only.unreadable == ()
    assert [(row.size, row.out_of_place, row.in_place, row.wrong) for row in only.rows] == [
        (size, speed, speed, 0) for size, speed in ROWS
    ]
    assert list(judged(sample)) == []


def test_an_old_build_has_a_deviation_and_no_count(tmp_path: Path) -> None:
    text = (
        "# nThread 1 nGpus 8 minBytes 8 maxBytes 1024 step: 2(factor) warmup iters: 5 iters: 20 validation: 1\n"
        "# Using devices\n"
        "#   Rank  0 Pid   7001 on       old1 device  0 [0x10] A100-SXM4-40GB\n"
        "#       size         count    type   redop     time   algbw   busbw  error     time   algbw   busbw  error\n"
        "#        (B)    (elements)                     (us)  (GB/s)  (GB/s)            (us)  (GB/s)  (GB/s)\n"
        "           8             2   float     sum    32.09    0.00    0.00  2e-07    31.74    0.00    0.00    N/A\n"
        "        1024           256   float     sum    12034   89.22  156.14  5e-07    12059   89.04  155.82  5e-07\n"
        "# Out of bounds values : 0 OK\n# Avg bus bandwidth    : 40.1\n"
    )
    (only,) = read(tmp_path, text).runs
    assert [(row.out_of_place, row.in_place, row.wrong) for row in only.rows] == [
        (0.0, 0.0, None),
        (156.14, 155.82, None),
    ]
    assert (only.is_finished, only.collective, only.hosts) == (True, "all_reduce", ("old1",))


def test_several_runs_in_one_file(tmp_path: Path) -> None:
    bare = table(((GIB, 120.0),)) + "\n" + footer()
    sample = read(tmp_path, run() + run(("n2",)) + bare)
    assert [item.hosts for item in sample.runs] == [("n1",), ("n2",), ()]
    assert all(item.is_finished for item in sample.runs)


def test_marks_of_launchers_and_the_log_of_nccl_are_no_rows(tmp_path: Path) -> None:
    lines = ["[1,0]<stdout>:" + line for line in run().splitlines()]
    lines[12:12] = ["n1:4100:4120 [0] NCCL INFO NET/OFI Selected provider is efa, fabric is efa (found 32 nics)"]
    sample = read(tmp_path, "\n".join(lines) + "\n\xff\xfe".encode("latin-1").decode("latin-1"))
    assert len(sample.runs[0].rows) == len(ROWS) and sample.runs[0].is_finished


def test_time_stamps_iterations_and_a_missing_half(tmp_path: Path) -> None:
    stamped = (
        "#       size         count      type   redop    root     time   algbw   busbw  #wrong     time   algbw   busbw"
        "  #wrong           timestamp\n"
        "  1073741824     268435456     float     sum      -1   4244.3  252.98  442.71       0   4252.2  252.51  441.90"
        "       0  2026-01-02 03:04:05\n" + footer()
    )
    in_place = (
        f"{HEADER}\n"
        "  1073741824     268435456     float     sum      -1                             4252.2  252.51  441.90     N/A\n"
        + footer()
    )
    sample = read(tmp_path, stamped + in_place)
    assert [(row.out_of_place, row.in_place, row.wrong) for item in sample.runs for row in item.rows] == [
        (442.71, 441.9, 0),
        (None, 441.9, None),
    ]


def document(**changes: object) -> str:
    half = {"time": 4244.3, "alg_bw": 252.98, "bus_bw": 442.71, "nwrong": 0.0}
    row = {
        "size": GIB,
        "count": GIB // 4,
        "type": "float",
        "redop": "sum",
        "root": "    -1",
        "out_of_place": half,
        "in_place": half,
    }
    document = {
        "version": 3,
        "start_time": "2026-01-02 03:04:05",
        "args": ["/opt/nccl-tests/build/all_reduce_perf", "-g", "8"],
        "env": [],
        "nccl_version": 22703,
        "config": {"nthreads": 1, "ngpus": 8, "devices": [{"rank": 0, "hostname": "n1", "device": 0}]},
        "results": [row],
        "out_of_bounds": {"count": 0, "okay": "true"},
        "average_bus_bandwidth": {"bandwidth": 442.71, "okay": "unchecked"},
        "errors": [""],
        "end_time": "2026-01-02 03:05:05",
    }
    return json.dumps({**document, **changes})


def test_json(tmp_path: Path) -> None:
    sample = read(tmp_path, document(), "p5.48xlarge")
    (only,) = sample.runs
    assert (only.collective, only.ranks, only.hosts, only.is_finished) == ("all_reduce", 8, ("n1",), True)
    assert (only.rows[0].slower, only.rows[0].wrong) == (442.71, 0)
    assert list(judged(sample)) == []


@pytest.mark.parametrize(
    "change", [{"end_time": None}, {"results": []}, {"results": [{"size": "x"}]}, {"out_of_bounds": None}]
)
def test_json_that_is_not_whole_is_never_good(tmp_path: Path, change: dict[str, object]) -> None:
    with pytest.raises(SensorError):
        list(judged(read(tmp_path, document(**change))))


@pytest.mark.parametrize("text", ["", "hello\n", "{}", "[1]", '{"version": 3', document()[:-40], "# Using devices\n"])
def test_what_is_no_output_of_nccl_tests(tmp_path: Path, text: str) -> None:
    with pytest.raises(SensorError):
        list(judged(read(tmp_path, text)))


def test_cut_anywhere_it_is_never_good(tmp_path: Path) -> None:
    text = run()
    whole = text.index("# Avg bus bandwidth")
    for end in range(0, whole, 7):
        with pytest.raises(SensorError):
            list(judged(read(tmp_path, text[:end])))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.binary(max_size=400), st.tuples(st.binary(max_size=40), st.integers(0, 3000))))
def test_only_sensor_errors_are_raised(tmp_path: Path, data: bytes | tuple[bytes, int]) -> None:
    text = run().encode()
    raw = data if isinstance(data, bytes) else text[: data[1]] + data[0] + text[data[1] + len(data[0]) :]
    try:
        list(judged(read(tmp_path, raw, "p5.48xlarge")))
    except SensorError:
        return
    assert b"# Out of bounds values" in raw or b"{" in raw


def test_hosts_and_indents_before_each_line(tmp_path: Path) -> None:
    for prefix in ("ip-10-0-0-1: ", "    ", "2026-01-02T03:04:05.678Z "):
        (only,) = read(tmp_path, "".join(prefix + line + "\n" for line in run().splitlines())).runs
        assert (len(only.rows), only.is_finished, only.ranks) == (len(ROWS), True, 8), prefix


def test_one_process_may_list_fewer_devices_than_it_uses(tmp_path: Path) -> None:
    (only,) = read(tmp_path, run(gpus=1).replace("nGpus 1 ", "nGpus 8 ")).runs
    assert only.ranks == 8


def test_a_run_that_missed_what_it_was_told_to_reach(tmp_path: Path) -> None:
    for text in (
        run().replace("156.742 ", "156.742 FAILED"),
        document(average_bus_bandwidth={"bandwidth": 1, "okay": "false"}),
    ):
        assert [finding.fault for finding in judged(read(tmp_path, text))] == ["nccl.below_asked"]
    assert list(judged(read(tmp_path, run().replace("156.742 ", "156.742 OK")))) == []


def test_a_count_beyond_any_number_is_no_footer(tmp_path: Path) -> None:
    with pytest.raises(SensorError):
        list(judged(read(tmp_path, run().replace("values : 0", "values : " + "9" * 5000))))
