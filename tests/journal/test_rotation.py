"""A journal of many files: what every single step of putting one aside leaves behind, and what is read of it."""

from __future__ import annotations

import gzip
import json
import logging
import multiprocessing
import os
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from nodewatch.errors import JournalError
from nodewatch.journal import pieces
from nodewatch.journal.disk import Disk
from nodewatch.journal.file import Journal
from nodewatch.model.ledger import Ledger
from nodewatch.model.plain import to_plain
from nodewatch.model.records import Record
from nodewatch.policy.fold import fold
from nodewatch.testing import World

SMALL = 1500
"""Bytes of a file: a handful of records."""


def history() -> list[tuple[float, str, dict[str, Any]]]:
    world = World(nodes=4, spares=1)
    world.submit(nodes=2, auto_resume="3")
    world.run(seconds=5)
    world.node("n2").loses_gpu()
    world.run(minutes=3)
    return [(record.at, record.kind, dict(record.data)) for record in world.journal.records]


HISTORY = history()
BY_HAND = [Record(number=n, at=at, kind=kind, data=data) for n, (at, kind, data) in enumerate(HISTORY, start=1)]


def amounts_to(count: int) -> Ledger:
    return fold(Ledger(), BY_HAND[:count])


def fill(journal: Journal, acknowledged: list[int] | None = None, upto: int = len(HISTORY)) -> None:
    """Appends the history from where the journal stands, as the engine does."""
    done = acknowledged if acknowledged is not None else []
    ledger = journal.take_ledger()
    number = journal.number
    while number < upto:
        record = journal.append(*HISTORY[number])
        number = record.number
        done.append(number)
        ledger = fold(ledger, (record,))
        journal.keep(ledger)


def filled(path: Path, **options: Any) -> None:
    journal = Journal(path, rotate_bytes=SMALL, **options)
    fill(journal)
    journal.close()


class Killed(BaseException):
    """The process is gone."""


class MortalDisk(Disk):
    """Dies at the call number `at`: before it, after it, or half-way through a write."""

    def __init__(self, at: int, when: str) -> None:
        self._left = at
        self._when = when

    def _do(self, call: Any, *arguments: Any) -> Any:
        if self._left < 0:
            raise Killed
        self._left -= 1
        if self._left >= 0:
            return call(*arguments)
        if self._when == "after":
            call(*arguments)
        if self._when == "half" and call == super().write:
            fd, data = arguments
            os.write(fd, data[: len(data) // 2])
        raise Killed

    def open(self, path: Path) -> int:
        return int(self._do(super().open, path))

    def write(self, fd: int, data: memoryview) -> int:
        return int(self._do(super().write, fd, data))

    def sync(self, fd: int) -> None:
        self._do(super().sync, fd)

    def truncate(self, fd: int, size: int) -> None:
        self._do(super().truncate, fd, size)

    def rename(self, old: Path, new: Path) -> None:
        self._do(super().rename, old, new)

    def remove(self, path: Path) -> None:
        self._do(super().remove, path)

    def sync_directory(self, path: Path) -> None:
        self._do(super().sync_directory, path)


@pytest.mark.parametrize("when", ["before", "after", "half"])
def test_a_controller_killed_at_any_system_call_loses_nothing(tmp_path: Path, when: str) -> None:
    upto = 30
    deaths = 0
    for at in range(10_000):
        path = tmp_path / f"{when}{at}" / "journal.jsonl"
        acknowledged: list[int] = []
        journal: Journal | None = None
        try:
            journal = Journal(path, rotate_bytes=SMALL, in_background=False, disk=MortalDisk(at, when))
            fill(journal, acknowledged, upto)
        except Killed:
            deaths += 1
        else:
            break
        finally:
            if journal is not None:
                journal.close()

        again = Journal(path, rotate_bytes=SMALL, in_background=False)
        kept = again.number
        assert kept in (len(acknowledged), len(acknowledged) + 1), f"killed {when} call {at}"
        assert again.take_past() == BY_HAND[:kept]
        assert again.take_ledger() == amounts_to(kept)
        again.close()
        filled(path, in_background=False)
        assert list(pieces.read_all(path)) == BY_HAND, f"killed {when} call {at}"
        assert not list(path.parent.glob("*.tmp")), "nothing half-written stays"
        assert not list(path.parent.glob("*.new"))
    assert deaths > 100, "the whole way was walked"


def _work(path: Path, report: Any) -> None:
    journal = Journal(path, rotate_bytes=SMALL)
    done: list[int] = []
    ledger = journal.take_ledger()
    while True:
        at, kind, data = HISTORY[journal.number % len(HISTORY)]
        record = journal.append(at, kind, data)
        report.send(record.number)
        done.append(record.number)
        ledger = fold(ledger, (record,))
        journal.keep(ledger)


def test_kill_9_at_any_moment_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    context = multiprocessing.get_context("fork")
    chance = random.Random(4)
    told = 0
    # Lives until there was something to lose: on a busy machine each writes little.
    for life in range(200):
        if life >= 12 and told > 50:
            break
        ours, theirs = context.Pipe(duplex=False)
        child = context.Process(target=_work, args=(path, theirs))
        child.start()
        theirs.close()
        assert ours.poll(30), "the child works"
        time.sleep(chance.uniform(0, 0.08))
        child.kill()
        child.join(30)
        while True:
            try:
                told = max(told, ours.recv())
            except EOFError:
                break
        journal = Journal(path, rotate_bytes=SMALL)
        assert journal.number in (told, told + 1)
        numbers = [record.number for record in pieces.read_all(path)]
        assert numbers == list(range(1, journal.number + 1))
        assert journal.take_ledger() == fold(Ledger(), pieces.read_all(path))
        journal.close()
    assert told > 50


def test_a_full_file_is_put_aside_and_the_next_begins_from_a_snapshot(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    filled(path)
    files = pieces.pieces(path)
    assert len(files) > 3
    assert files[-1].path == path
    assert all(piece.path.suffix == ".gz" for piece in files[:-1]), "full files are compressed"
    assert list(pieces.read_all(path)) == BY_HAND
    for first, name in pieces.snapshot_names(path):
        snapshot = pieces.load_snapshot(name)
        assert snapshot.number == first - 1
        assert snapshot.is_current
        assert snapshot.ledger == amounts_to(first - 1)


def test_a_start_reads_the_newest_snapshot_and_the_records_after_it(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    filled(path)
    for piece in pieces.pieces(path)[:-2]:
        piece.path.unlink()
    journal = Journal(path)
    assert journal.take_ledger() == amounts_to(len(HISTORY)), "older files are not needed"
    assert journal.number == len(HISTORY)
    journal.close()


def test_the_last_records_are_handed_over_from_older_files_too(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    filled(path)
    journal = Journal(path)
    assert journal.take_past() == BY_HAND
    journal.close()
    assert pieces.last(path, 7) == BY_HAND[-7:]


def damage(path: Path, how: str) -> None:
    data = path.read_bytes()
    if how == "torn":
        path.write_bytes(data[: len(data) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "changed":
        middle = len(data) // 2
        path.write_bytes(data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :])
    elif how == "newer":
        document = json.loads(gzip.decompress(data))
        path.write_bytes(gzip.compress(json.dumps({**document, "v": 2}).encode()))
    else:
        path.write_bytes(gzip.compress(b"[]"))


@pytest.mark.parametrize("how", ["torn", "empty", "changed", "newer", "other"])
@pytest.mark.parametrize("count", [1, 2, 99])
def test_a_damaged_snapshot_falls_back_to_the_one_before_and_is_named(
    tmp_path: Path, how: str, count: int, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "journal.jsonl"
    filled(path)
    names = [name for _, name in pieces.snapshot_names(path)][:count]
    for name in names:
        damage(name, how)
    with caplog.at_level(logging.WARNING):
        journal = Journal(path)
    assert journal.take_ledger() == amounts_to(len(HISTORY))
    journal.close()
    for name in names:
        assert any(f"{name} is no whole snapshot" in message for message in caplog.messages)


def test_without_the_first_files_and_without_any_snapshot_it_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    filled(path)
    pieces.pieces(path)[0].path.unlink()
    for _, name in pieces.snapshot_names(path):
        damage(name, "torn")
    with pytest.raises(JournalError, match="first records are gone and no snapshot can be read") as caught:
        Journal(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    filled(path)
    files = pieces.pieces(path)
    files[2].path.unlink()
    with pytest.raises(JournalError, match="a file of the journal is missing") as caught:
        list(pieces.read_all(path))
    assert files[3].path.name in str(caught.value)


def test_a_snapshot_of_a_release_that_remembers_less_is_not_taken_while_the_records_are_there(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    filled(path)
    for _, name in pieces.snapshot_names(path):
        document = json.loads(gzip.decompress(name.read_bytes()))
        document["shape"] = 1
        del document["ledger"]["cases"]
        name.write_bytes(gzip.compress(json.dumps(document).encode()))
    journal = Journal(path)
    assert journal.take_ledger() == amounts_to(len(HISTORY))
    journal.close()
    pieces.pieces(path)[0].path.unlink()
    journal = Journal(path)
    assert journal.number == len(HISTORY), "older records are gone: what it holds is all there is"
    journal.close()


def test_old_files_go_after_their_days_and_what_is_left_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    filled(path)
    now = time.time()
    files = pieces.pieces(path)[:-1]
    for age, piece in enumerate(reversed(files)):
        os.utime(piece.path, (now - age * 86400 - 60, now - age * 86400 - 60))
    pieces.tidy(path, keep_days=3, now=now, disk=Disk())
    left = pieces.pieces(path)
    assert len(left) == 4, "three days and the present"
    assert left[0].first is not None
    assert list(pieces.read_all(path)) == BY_HAND[left[0].first - 1 :]
    assert len(pieces.snapshot_names(path)) == 4
    journal = Journal(path)
    assert journal.take_ledger() == amounts_to(len(HISTORY))
    journal.close()


def test_no_file_goes_whose_snapshot_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    filled(path)
    for _, name in pieces.snapshot_names(path):
        damage(name, "torn")
    before = pieces.pieces(path)
    pieces.tidy(path, keep_days=0, now=time.time() + 1e9, disk=Disk())
    assert pieces.pieces(path) == before


class FullDisk(Disk):
    """Has no room for snapshots."""

    def __init__(self, refuses: Sequence[str]) -> None:
        self.refuses = refuses

    def write_whole(self, path: Path, data: bytes) -> None:
        if "write_whole" in self.refuses:
            raise OSError(28, "No space left on device")
        super().write_whole(path, data)

    def rename(self, old: Path, new: Path) -> None:
        if f"rename {new.name.partition('-')[0]}" in self.refuses:
            raise OSError(28, "No space left on device")
        super().rename(old, new)


@pytest.mark.parametrize("refuses", ["write_whole", "rename journal", "rename journal.jsonl"])
def test_a_file_that_cannot_be_put_aside_grows_on(
    tmp_path: Path, refuses: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "journal.jsonl"
    disk = FullDisk([refuses])
    journal = Journal(path, rotate_bytes=SMALL, disk=disk)
    with caplog.at_level(logging.WARNING):
        fill(journal, upto=20)
    assert any("cannot be put aside, it grows on" in message for message in caplog.messages)
    journal.close()
    assert list(pieces.read_all(path)) == BY_HAND[:20]
    filled(path)
    assert list(pieces.read_all(path)) == BY_HAND


def test_a_late_line_of_one_who_was_taken_over_from_does_no_harm(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "journal.jsonl"
    paused = Journal(path)
    fill(paused, upto=10)
    taken = Journal(path, takes_over=True)
    assert taken.number == 10
    fill(taken, upto=12)
    late = paused.append(1.0, "held", {"held": []})
    assert late.number == 11
    fill(taken, upto=len(HISTORY))
    paused.close()
    taken.close()
    assert list(pieces.read_all(path)) == BY_HAND
    # The same where the line came before the file was compressed.
    (old,) = pieces.pieces(path)[:-1]
    line = json.dumps(late.to_json()).encode() + b"\n"
    old.path.write_bytes(gzip.compress(gzip.decompress(old.path.read_bytes()) + line))
    with caplog.at_level(logging.WARNING):
        assert list(pieces.read_all(path)) == BY_HAND
    assert any("had been taken over from" in message for message in caplog.messages)
    assert pieces.last(path, 5) == BY_HAND[-5:]
    again = Journal(path)
    assert again.take_ledger() == amounts_to(len(HISTORY))
    again.close()


def test_a_guard_that_refuses_keeps_the_file_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"

    def refuse() -> None:
        raise JournalError("another took over")

    journal = Journal(path, guard=refuse)
    with pytest.raises(JournalError, match="another took over"):
        journal.append(1.0, "held", {"held": []})
    assert path.read_bytes() == b""
    journal.close()


def test_only_the_kinds_that_are_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    filled(path)
    found = list(pieces.read_all(path, kinds={"case", "judged"}))
    assert found == [record for record in BY_HAND if record.kind in ("case", "judged")]


def test_records_of_a_newer_release_are_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text('{"v":2,"n":1,"at":1.0,"kind":"held","held":[]}\n')
    with pytest.raises(JournalError, match="install the release that wrote it, or move the file away"):
        Journal(path)


def test_time_that_goes_back_is_read_again_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    records = [
        journal.append(at, "hello", {"node": "n1", "boot_id": "b", "instance_id": "i"}) for at in (9.0, 5.0, 7.0)
    ]
    journal.close()
    again = Journal(path)
    assert again.take_past() == records
    assert to_plain(again.take_ledger())["agents"]["n1"]["heard_at"] == 7.0
    again.close()
