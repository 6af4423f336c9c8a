"""The journal on a real file: what a crash at any byte, a second controller, a bad line and a full disk come to."""

from __future__ import annotations

import json
import multiprocessing
import resource
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from nodewatch.errors import JournalError
from nodewatch.journal.file import Journal, read
from nodewatch.model.records import Record

DATA = {
    "action": {"action": "drain", "key": "k", "node": "n2", "reason": "nodewatch: ü \n \u2028"},
    "nothing": None,
    "numbers": [1, 2.5],
}


def written(path: Path, count: int) -> list[Record]:
    journal = Journal(path)
    records = [journal.append(100.0 + n, "intended", {**DATA, "n_of": n}) for n in range(count)]
    journal.close()
    return records


def test_what_was_appended_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "state" / "journal.jsonl"
    records = written(path, 3)

    assert list(read(path)) == records
    assert [record.number for record in records] == [1, 2, 3]
    again = Journal(path)
    assert again.take_past() == records
    assert again.take_past() == [], "the past is handed over once"
    assert again.append(200.0, "held", {}).number == 4


def test_no_file_is_an_empty_journal(tmp_path: Path) -> None:
    assert list(read(tmp_path / "none.jsonl")) == []


def test_every_record_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    written(path, 3)
    assert len(path.read_bytes().splitlines()) == 3


def test_a_crash_at_any_byte_of_the_last_record_loses_that_record_alone(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    records = written(path, 3)
    whole = path.read_bytes()
    start = whole[:-1].rfind(b"\n") + 1
    for length in range(start, len(whole)):
        path.write_bytes(whole[:length])

        assert list(read(path)) == records[:2], f"cut at byte {length}"
        journal = Journal(path)
        assert journal.take_past() == records[:2]
        assert journal.append(300.0, "held", {}).number == 3
        journal.close()
        assert [record.kind for record in read(path)] == ["intended", "intended", "held"]


def test_a_torn_only_record_leaves_an_empty_journal(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b'{"v":1,"n":1,"at"')
    journal = Journal(path)
    assert journal.take_past() == []
    assert journal.append(1.0, "started", {}).number == 1


@pytest.mark.parametrize(
    "line",
    [
        b"garbage",
        b"",
        b"\0\0\0\0",
        b"[]",
        b"17",
        b"null",
        b'{"v":1,"n":2}',
        b'{"v":1,"n":"x","at":1,"kind":"held"}',
        b'{"v":1,"n":2,"at":null,"kind":"held"}',
        b'{"v":1,"n":1e999,"at":1,"kind":"held"}',
        b"[" * 100_000,
        b"\xff\xfe",
    ],
)
def test_garbage_in_the_middle_is_an_error_that_names_the_line(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "journal.jsonl"
    written(path, 3)
    lines = path.read_bytes().split(b"\n")
    lines[1] = line
    path.write_bytes(b"\n".join(lines))
    before = path.read_bytes()

    with pytest.raises(JournalError, match=rf"{path}: line 2 .*move the file away"):
        Journal(path)
    assert path.read_bytes() == before, "the evidence is not touched"
    Journal(tmp_path / "other.jsonl").close()


def test_a_lost_line_is_an_error_that_names_the_gap(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    written(path, 4)
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join(lines[:1] + lines[2:]))
    with pytest.raises(JournalError, match=r"line 2 .*number is 3 where 2 follows: lines were lost"):
        Journal(path)


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_a_journal_of_another_release_is_refused_in_one_sentence(tmp_path: Path, version: object) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text(json.dumps({"v": version, "n": 1, "at": 1.0, "kind": "held", "held": []}) + "\n")
    with pytest.raises(JournalError) as caught:
        Journal(path)
    assert f"schema version {version!r}, this release reads 1" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_second_controller_is_refused_until_the_first_has_gone(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    first = Journal(path)
    with pytest.raises(JournalError, match="in use by another controller"):
        Journal(path)
    assert first.append(1.0, "held", {}).number == 1, "the first is not disturbed"
    first.close()
    assert Journal(path).append(2.0, "held", {}).number == 2


def test_a_failed_opening_gives_the_lock_back(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text("garbage\n")
    with pytest.raises(JournalError):
        Journal(path)
    path.unlink()
    Journal(path).close()


@pytest.mark.parametrize("path", ["a-directory", "a-file/journal.jsonl"])
def test_a_path_that_cannot_be_opened_is_one_sentence(tmp_path: Path, path: str) -> None:
    (tmp_path / "a-directory").mkdir()
    (tmp_path / "a-file").write_text("")
    with pytest.raises(JournalError, match="cannot be opened"):
        Journal(tmp_path / path)


def test_what_was_reported_cannot_overwrite_number_time_and_kind(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    journal.append(5.0, "hello", {"v": 9, "n": 99, "at": "yesterday", "kind": "done", "node": "n1"})
    journal.close()
    (record,) = read(path)
    assert (record.number, record.at, record.kind, record.data) == (1, 5.0, "hello", {"node": "n1"})


def _fill(path: Path, limit: int, report: Callable[[object], None]) -> None:
    # Past the limit the kernel writes what still fits and then answers EFBIG, as a full disk answers ENOSPC.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    journal = Journal(path)
    kept = 0
    try:
        while True:
            journal.append(1.0, "intended", DATA)
            kept += 1
    except JournalError as error:
        size = path.stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        report((kept, str(error), size, journal.append(2.0, "held", {}).number))


@pytest.mark.parametrize("limit", [1000, 1001, 1100, 1200])
def test_a_full_disk_is_an_error_and_the_file_ends_with_a_whole_record(tmp_path: Path, limit: int) -> None:
    path = tmp_path / "journal.jsonl"
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    child = context.Process(target=_fill, args=(path, limit, theirs.send))
    child.start()
    child.join(30)
    assert child.exitcode == 0
    kept, error, size, number = ours.recv()

    assert kept > 0
    assert f"{path} cannot be written: " in error
    assert size <= limit
    records = list(read(path))
    assert [record.number for record in records] == list(range(1, len(records) + 1))
    assert [record.kind for record in records[:kept]] == ["intended"] * kept
    assert number == len(records) == kept + 1, "the same controller goes on once there is room"
