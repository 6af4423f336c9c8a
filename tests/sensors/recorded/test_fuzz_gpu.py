"""Damaged recordings of the GPUs' tools, through the path that the command takes: no traceback, and never a false `ok`."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nodewatch.cli.replay import judge

HERE = Path(__file__).parent
NCCL = b"""# nThread 1 nGpus 8 minBytes 8 maxBytes 1073741824 step: 2(factor) warmup iters: 5 iters: 20 validation: 1
# Collective test starting: all_reduce_perf
# Using devices
#  Rank  0 Group  0 Pid   4001 on     node-7 device  0 [0x18] NVIDIA H100 80GB HBM3
#  Rank  1 Group  0 Pid   4001 on     node-7 device  1 [0x2a] NVIDIA H100 80GB HBM3
#
#                                                              out-of-place                       in-place
#       size         count      type   redop    root     time   algbw   busbw #wrong     time   algbw   busbw #wrong
#        (B)    (elements)                               (us)  (GB/s)  (GB/s)            (us)  (GB/s)  (GB/s)
           8             2     float     sum      -1    16.03    0.00    0.00      0    15.73    0.00    0.00      0
   134217728      33554432     float     sum      -1    611.1  219.63  384.36      0    612.0  219.31  383.79      0
  1073741824     268435456     float     sum      -1   4040.1  265.77  465.10      0   4041.5  265.68  464.94      0
# Out of bounds values : 0 OK
# Avg bus bandwidth    : 212.198
"""
NCCL_JSON = b"""{"version": 3, "start_time": "2026-01-01 10:00:00", "args": ["/opt/all_reduce_perf", "-g", "2"],
"nccl_version": 22800,
"config": {"devices": [{"rank": 0, "hostname": "node-7"}], "nthreads": 1, "ngpus": 2},
"results": [{"size": 1073741824, "count": 268435456, "type": "float", "redop": "sum", "root": "-1",
"out_of_place": {"time": 4040.1, "alg_bw": 265.7, "bus_bw": 465.1, "nwrong": "0"},
"in_place": {"time": 4041.5, "alg_bw": 265.6, "bus_bw": 464.9, "nwrong": "0"}}],
"out_of_bounds": {"count": 0, "okay": true}, "average_bus_bandwidth": {"bandwidth": 465.0}, "end_time": "2026-01-01 10:01:00"}
"""
BENIGN: dict[str, tuple[str, bytes]] = {
    **{
        f"dcgm/{name}": ("dcgm", (HERE / "dcgm" / name).read_bytes())
        for name in ("h100_pass_r2.json", "a100_pass_r1.json")
    },
    "dcgm_health/healthy.json": ("dcgm-health", (HERE / "dcgm_health" / "healthy.json").read_bytes()),
    **{
        f"nvidia_smi/{name}": ("nvidia-smi", (HERE / "nvidia_smi" / name).read_bytes())
        for name in ("a100_healthy.xml", "h100_healthy.xml", "b200_healthy.xml")
    },
    "nccl/text": ("nccl", NCCL),
    "nccl/json": ("nccl", NCCL_JSON),
}
CORPUS: dict[str, tuple[str, bytes]] = {
    **BENIGN,
    **{
        f"{folder}/{path.name}": (sensor, path.read_bytes())
        for folder, sensor in (("dcgm", "dcgm"), ("dcgm_health", "dcgm-health"), ("nvidia_smi", "nvidia-smi"))
        for path in sorted((HERE / folder).iterdir())
    },
    "nccl/wrong": (
        "nccl",
        NCCL.replace(b"265.77  465.10      0", b"265.77  465.10     17").replace(b": 0 OK", b": 17 FAILED"),
    ),
    "nccl/crash": (
        "nccl",
        NCCL[:900] + b"\nnode-7: Test NCCL failure common.cu:303 'unhandled cuda error'\nSegmentation fault\n",
    ),
}
ENDS = {"dcgm": b"}", "dcgm-health": b"}", "nvidia-smi": b">", "nccl": b"}"}
"""The byte without which a document is none; the table of nccl-tests ends with its average."""


def run(sensor: str, data: bytes, folder: Path) -> dict[str, Any]:
    path = folder / "recording"
    path.write_bytes(data)
    document = judge(sensor, "", path)
    # The command catches what a parser lets through; here it is a failure of the parser.
    assert "could not be evaluated" not in (document["error"] or ""), document
    assert "the check failed with" not in (document["error"] or ""), document
    assert document["status"] in ("ok", "findings", "unknown")
    return document


def is_above_warn(document: dict[str, Any]) -> bool:
    return any(finding["severity"] in ("degraded", "fatal") for finding in document["findings"])


@pytest.mark.parametrize("name", BENIGN)
def test_a_healthy_document_is_ok_once_and_twice(name: str, tmp_path: Path) -> None:
    sensor, data = BENIGN[name]
    for text in (data, data + b"\n" + data, data.replace(b"\n", b"\r\n"), b"\xef\xbb\xbf" + data):
        document = run(sensor, text, tmp_path)
        assert not is_above_warn(document)
        # A byte order mark before JSON and twice the same JSON of nccl-tests are no documents of theirs.
        assert document["status"] == "ok" or (sensor == "nccl" and text != data), document


@pytest.mark.parametrize("name", BENIGN)
def test_a_healthy_document_that_is_cut_off_is_unknown(name: str, tmp_path: Path) -> None:
    sensor, data = BENIGN[name]
    end = data.rindex(b": 212") + 1 if name == "nccl/text" else data.rindex(ENDS[sensor])
    for at in [*range(0, end, max(1, end // 160)), *range(max(0, end - 40), end)]:
        document = run(sensor, data[:at], tmp_path)
        assert document["status"] != "ok", at
        assert not is_above_warn(document), at


def _flipped(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.randint(1, 8)):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _swapped(data: bytearray, rng: random.Random) -> None:
    lines = bytes(data).splitlines(keepends=True)
    for _ in range(4):
        one, other = rng.randrange(len(lines)), rng.randrange(len(lines))
        lines[one], lines[other] = lines[other], lines[one]
    data[:] = b"".join(lines)


def _doubled(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(data))
    end = rng.randint(start, min(len(data), start + 2000))
    data[end:end] = data[start:end] * rng.randint(1, 3)


def _dropped(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(data))
    del data[start : start + rng.randint(1, 200)]


def _foreign(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data))
    data[at:at] = rng.choice(
        [b"\xff\xfe\x80", b"\x00" * 9, b"{" * 50, b"\x1b[31m", b"<!ENTITY x 'y'>", b"9" * 400, b"|||+--"]
    )


def _joined(data: bytearray, rng: random.Random) -> None:
    other = rng.choice(list(CORPUS.values()))[1]
    data[rng.randrange(len(data)) :] = other[rng.randrange(len(other)) :]


MUTATORS: tuple[Callable[[bytearray, random.Random], None], ...] = (
    _flipped,
    _swapped,
    _doubled,
    _dropped,
    _foreign,
    _joined,
)


@pytest.mark.parametrize("name", CORPUS)
def test_damaged_documents_end_in_no_traceback(name: str, tmp_path: Path) -> None:
    sensor, original = CORPUS[name]
    rng = random.Random(name)
    for _ in range(24):
        data = bytearray(original)
        for _ in range(rng.randint(1, 3)):
            if data:
                rng.choice(MUTATORS)(data, rng)
        run(sensor, bytes(data), tmp_path)


@pytest.mark.parametrize("sensor", ["dcgm", "dcgm-health", "nvidia-smi", "nccl"])
@pytest.mark.parametrize(
    "unit",
    [b"a", b"{", b"[", b'"', b"<", b"<gpu>", b"| ", b"+-", b"# ", b"0 ", b"Rank 0 ", b"\x00", b"\xff", b" ", b"GPU 0 "],
)
def test_a_line_of_a_megabyte_is_never_ok(sensor: str, unit: bytes, tmp_path: Path) -> None:
    assert run(sensor, unit * ((1 << 20) // len(unit)), tmp_path)["status"] != "ok"


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.sampled_from(["dcgm", "dcgm-health", "nvidia-smi", "nccl"]), st.binary(max_size=300))
def test_any_bytes_are_never_ok(tmp_path: Path, sensor: str, data: bytes) -> None:
    assert run(sensor, data, tmp_path)["status"] != "ok"
