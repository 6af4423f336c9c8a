"""`nodewatch explain --since`: the story of the journal's older files, of what is gone and without a controller too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from nodewatch.cli.explain import explain, story_since
from nodewatch.controller import views
from nodewatch.journal import pieces
from nodewatch.journal.file import Journal
from nodewatch.journal.story import sentences
from nodewatch.model.records import Record
from nodewatch.policy.fold import fold
from nodewatch.testing import World


@pytest.fixture(scope="module")
def world() -> World:
    made = World(nodes=4, spares=1)
    made.submit(nodes=2, auto_resume="3")
    made.run(seconds=5)
    made.engine.note("paused", {"scopes": ["cluster"], "by": "ada", "reason": "", "until": None})
    made.engine.note("resumed", {"scopes": ["cluster"], "by": "ada"})
    made.node("n2").loses_gpu()
    made.run(minutes=3)
    return made


@pytest.fixture
def journal(world: World, tmp_path: Path) -> Path:
    """The world's records in many small files."""
    path = tmp_path / "journal.jsonl"
    store = Journal(path, rotate_bytes=1500, in_background=False)
    ledger = store.take_ledger()
    for record in world.journal.records:
        ledger = fold(ledger, (store.append(record.at, record.kind, record.data),))
        store.keep(ledger)
    store.close()
    assert len(pieces.pieces(path)) > 5
    return path


def as_written(world: World) -> list[Record]:
    return list(world.journal.records)


def test_the_story_of_all_files_is_that_of_all_records(world: World, journal: Path) -> None:
    for node in ("n1", "n2", "n4"):
        assert story_since(journal, node, 0.0) == sentences(as_written(world), node=node)
    assert story_since(journal, "1", 0.0) == sentences(as_written(world), job_id=1)
    assert any("repairs were paused by ada" in entry["text"] for entry in story_since(journal, "n1", 0.0))


def test_what_was_before_is_left_out(world: World, journal: Path) -> None:
    whole = story_since(journal, "n2", 0.0)
    middle = whole[len(whole) // 2]["at"]
    assert story_since(journal, "n2", middle) == [entry for entry in whole if entry["at"] >= middle]


def ran(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(explain, list(arguments))
    return done.exit_code, done.output if done.exception is None or done.output else str(done.exception)


def test_without_a_controller_the_past_is_told_alone(journal: Path, tmp_path: Path) -> None:
    place = ("--state-dir", str(journal.parent), "--socket", str(tmp_path / "none.sock"))
    code, text = ran("n2", "--since", "99999d", *place)
    assert code == 0
    assert text.startswith("n2: its past alone (no controller answers at ")
    assert "launch a new instance for n2" in text
    code, text = ran("n2", "--since", "99999d", "--json", *place)
    assert (code, json.loads(text)["kind"]) == (0, "past")
    code, text = ran("n77", "--since", "99999d", *place)
    assert code == 1
    code, text = ran("n2", "--since", "30d", "--state-dir", str(tmp_path / "elsewhere"))
    assert (code, "does not exist" in text) == (1, True)


def test_a_memory_that_does_not_reach_back_says_how_to_read_on(world: World) -> None:
    engine = world.engine
    for records, reaches in ((as_written(world), True), (as_written(world)[5:], False)):
        told = views.explain("n2", engine.snapshot, engine.ledger, (), world.rules, records, world.clock())
        assert (told["remembered_since"] is None) == reaches


def test_a_long_search_says_how_far_it_is(journal: Path) -> None:
    files: list[tuple[int, int]] = []
    found = list(pieces.read_all(journal, holding=("n2",), tell=lambda place, count: files.append((place, count))))
    assert found
    assert [place for place, _ in files] == list(range(1, len(files) + 1))
    assert files[-1][0] == files[-1][1]
