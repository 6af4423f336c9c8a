"""The spool: nothing lost, nothing given twice, bounded, and honest about a full disk."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewatch.agent.spool import Spool

from .world import ROOT


def spool_at(path: Path, *, now: float = 1000.0, max_bytes: int = 1_000_000, boot_id: str = "b") -> Spool:
    return Spool(path, boot_id=boot_id, max_bytes=max_bytes, now=now)


def is_on_disk(spool: Spool) -> bool:
    return spool.error is None


def ids(spool: Spool) -> list[str]:
    return [event["id"] for event in spool.batch(max_events=10_000, max_bytes=1 << 30)]


def test_what_waits_is_there_again(tmp_path: Path) -> None:
    path = tmp_path / "s" / "spool.jsonl"
    spool = spool_at(path)
    first, second, third = (spool.append("verdict", 1.0, {"n": n}) for n in range(3))
    spool.accept([second, "unknown:1"])
    spool.close()
    again = spool_at(path)
    assert ids(again) == [first, third]
    assert again.batch()[0] == {"id": first, "at": 1.0, "kind": "verdict", "n": 0}
    again.accept([first, third])
    again.close()
    assert spool_at(path).depth == 0


def test_an_id_is_never_given_twice(tmp_path: Path) -> None:
    path = tmp_path / "spool.jsonl"
    seen = set()
    for now in (1000.0, 1000.0, 5.0, 2000.0):
        spool = spool_at(path, now=now)
        for _ in range(3):
            event_id = spool.append("hello", now, {})
            assert event_id not in seen
            seen.add(event_id)
        spool.accept(list(seen))
        spool.close()
    path.unlink()
    assert spool_at(path, now=3000.0).append("hello", 0.0, {}) not in seen


@given(st.binary(max_size=300), st.integers(0, 400))
def test_a_torn_or_spoilt_file_loses_nothing_that_is_whole(
    tmp_path_factory: pytest.TempPathFactory, junk: bytes, cut: int
) -> None:
    path = tmp_path_factory.mktemp("s") / "spool.jsonl"
    spool = spool_at(path)
    kept = [spool.append("verdict", 1.0, {"n": n}) for n in range(4)]
    spool.close()
    data = path.read_bytes()
    if cut < len(data):
        whole = data[: data.rfind(b"\n", 0, cut) + 1]
        path.write_bytes(data[:cut])
        survivors = [event for event in kept if event.encode() in whole]
        assert set(survivors) <= set(ids(spool_at(path)))
    path.write_bytes(data + b"\n" + junk.replace(b"accepted", b""))
    assert set(kept) <= set(ids(spool_at(path)))


def test_it_is_bounded_and_the_newest_stays(tmp_path: Path) -> None:
    path = tmp_path / "spool.jsonl"
    spool = spool_at(path, max_bytes=20_000)
    given_ids = [spool.append("verdict", 1.0, {"text": "x" * 1000}) for _ in range(500)]
    assert spool.dropped > 400
    assert ids(spool)[-1] == given_ids[-1]
    assert path.stat().st_size < 20_000 + 300_000
    one = spool_at(tmp_path / "one", max_bytes=100)
    kept = one.append("verdict", 1.0, {"text": "x" * 1000})
    assert ids(one) == [kept]


def test_the_file_does_not_grow_with_history(tmp_path: Path) -> None:
    path = tmp_path / "spool.jsonl"
    spool = spool_at(path)
    for _ in range(2000):
        spool.accept([spool.append("verdict", 1.0, {"text": "x" * 1000})])
    assert path.stat().st_size < 400_000
    assert spool.depth == 0


def test_batches_are_bounded_and_never_empty(tmp_path: Path) -> None:
    spool = spool_at(tmp_path / "spool.jsonl")
    for _ in range(10):
        spool.append("verdict", 1.0, {"text": "x" * 1000})
    assert len(spool.batch(max_events=3)) == 3
    assert len(spool.batch(max_bytes=2500)) == 2
    assert len(spool.batch(max_bytes=10)) == 1


def test_a_disk_that_takes_no_more_keeps_in_memory_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "spool.jsonl"
    spool = spool_at(path)
    first = spool.append("verdict", 1.0, {})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # A write beyond the limit fails half-way, as on a disk that runs full.
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20, hard))
    try:
        second = spool.append("verdict", 2.0, {})
        third = spool.append("verdict", 3.0, {})
        assert spool.error is not None
        assert "free the disk" in spool.error
        assert ids(spool) == [first, second, third]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert ids(spool_at(tmp_path / "spool.jsonl"))[0] == first
    fourth = spool.append("verdict", 4.0, {})
    assert is_on_disk(spool)
    spool.close()
    assert ids(spool_at(path)) == [first, second, third, fourth]


def test_kill_9_in_the_middle_of_writing(tmp_path: Path) -> None:
    path = tmp_path / "spool.jsonl"
    code = (
        "import sys; from pathlib import Path; from nodewatch.agent.spool import Spool\n"
        "spool = Spool(Path(sys.argv[1]), boot_id='b', max_bytes=10**7, now=1.0)\n"
        "while True: print(spool.append('verdict', 1.0, {'text': 'x' * 200}), flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None
    told = [process.stdout.readline().strip() for _ in range(200)]
    process.kill()
    told += [line.strip() for line in process.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
    process.wait(10)
    assert set(told) <= set(ids(spool_at(path)))


def test_every_line_is_json(tmp_path: Path) -> None:
    path = tmp_path / "spool.jsonl"
    spool = spool_at(path)
    spool.accept([spool.append("hello", 1.0, {"text": "ü\n\u2028"})])
    spool.append("hello", 1.0, {"text": "ü\n\u2028"})
    spool.close()
    for line in path.read_bytes().splitlines():
        json.loads(line)
    assert path.stat().st_mode & 0o077 == 0
