"""The files that slurmctld's hooks leave: their order, and that one is removed only after it was kept."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from nodewatch.controller.inbox import take_all
from nodewatch.errors import JournalError
from nodewatch.testing import World


def leave(inbox: Path, name: str, age_s: float = 0.0, content: bytes | None = None) -> Path:
    path = inbox / name
    path.write_bytes(json.dumps({"name": name}).encode() if content is None else content)
    # A fixed time, so that the order does not hang on how fast the test runs.
    os.utime(path, (1_700_000_000 - age_s,) * 2)
    return path


def take(inbox: Path) -> list[str]:
    names: list[str] = []
    take_all(inbox, lambda message: names.append(message["name"]))
    return names


def test_no_inbox_is_an_empty_one(tmp_path: Path) -> None:
    assert take_all(tmp_path / "none", lambda _: None) == 0


def test_oldest_first_and_removed(tmp_path: Path) -> None:
    leave(tmp_path, "job_ended-1-0.json", age_s=1)
    leave(tmp_path, "job_started-2-0.json", age_s=2)
    leave(tmp_path, "job_started-1-0.json", age_s=3)
    leave(tmp_path, ".job_started-3-0.tmp", age_s=9)

    assert take(tmp_path) == ["job_started-1-0.json", "job_started-2-0.json", "job_ended-1-0.json"]
    assert [path.name for path in tmp_path.iterdir()] == [".job_started-3-0.tmp"], "not renamed yet, so not whole"
    assert take(tmp_path) == []


def test_within_one_step_of_the_clock_a_run_starts_before_it_ends(tmp_path: Path) -> None:
    names = ["job_started-9-0.json", "job_ended-9-0.json", "job_started-9-1.json", "job_ended-9-1.json"]
    for name in sorted(names):
        leave(tmp_path, name)
    leave(tmp_path, "job_started-10-0.json")
    assert take(tmp_path) == [*names, "job_started-10-0.json"]


def test_a_file_is_there_until_it_was_kept(tmp_path: Path) -> None:
    path = leave(tmp_path, "job_started-1-0.json")
    later = leave(tmp_path, "job_started-2-0.json")

    def full(_: Mapping[str, Any]) -> None:
        assert path.exists()
        raise JournalError("no space left on device")

    with pytest.raises(JournalError):
        take_all(tmp_path, full)
    assert path.exists()
    assert later.exists()
    assert take(tmp_path) == ["job_started-1-0.json", "job_started-2-0.json"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"17",
        b"[" * 100_000,
        b"{}",
        b'{"kind":"job_exploded","job_id":1}',
        b'{"kind":"job_started"}',
        b'{"kind":"job_started","job_id":"x"}',
        b'{"kind":"job_started","job_id":null}',
        b'{"kind":"job_started","job_id":Infinity}',
        b'{"kind":"job_started","job_id":1,"nodes":"n[1-"}',
        b'{"kind":"job_started","job_id":1,"restart_count":"many"}',
        b'{"kind":"job_started","job_id":1,"at":"yesterday"}',
        b'{"kind":"job_started","job_id":1,"at":null}',
        b'{"kind":"job_started","job_id":1,"at":NaN}',
    ],
)
def test_a_bad_file_is_put_aside_and_does_not_block_the_others(tmp_path: Path, content: bytes) -> None:
    world = World()
    leave(tmp_path, "job_started-1-0.json", age_s=9, content=content)
    good = b'{"v":1,"kind":"job_started","at":1700000000.0,"job_id":2,"restart_count":0,"nodes":"n[1-2]","auto_resume":"3"}'
    leave(tmp_path, "job_started-2-0.json", content=good)

    assert take_all(tmp_path, world.engine.receive_hook) == 2
    assert (tmp_path / "rejected" / "job_started-1-0.json").read_bytes() == content
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rejected"]
    assert set(world.engine.ledger.jobs) == {2}
    assert [record.kind for record in world.journal.records] == ["started", "job_started"]


def test_what_is_no_file_is_put_aside_too(tmp_path: Path) -> None:
    (tmp_path / "job_started-1-0.json").mkdir()
    leave(tmp_path, "job_started-2-0.json")
    assert take(tmp_path) == ["job_started-2-0.json"]
    assert (tmp_path / "rejected" / "job_started-1-0.json").is_dir()


def test_a_file_handed_over_twice_changes_nothing(tmp_path: Path) -> None:
    world = World()
    start = b'{"v":1,"kind":"job_started","at":1700000000.0,"job_id":2,"restart_count":0,"nodes":"n[1-2]","auto_resume":"3"}'
    end = (
        b'{"v":1,"kind":"job_ended","at":1700000009.0,"job_id":2,"restart_count":0,"nodes":"n[1-2]","exit_code":"1:0"}'
    )
    for _ in range(2):
        leave(tmp_path, "job_started-2-0.json", age_s=2, content=start)
        leave(tmp_path, "job_ended-2-0.json", age_s=1, content=end)
        take_all(tmp_path, world.engine.receive_hook)
        job = world.engine.ledger.jobs[2]
        assert (job.nodes, job.started_at, job.ended_at, job.exit_code) == (
            ("n1", "n2"),
            1700000000.0,
            1700000009.0,
            "1:0",
        )
