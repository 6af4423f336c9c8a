"""What is counted of hooks that got no answer, and that somebody is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from nodewatch.agent.tally import HookMisses


def test_misses_are_counted_once_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "hook-misses"
    misses = HookMisses(path)
    misses.look()
    assert (misses.count, caplog.messages) == (0, [])
    path.write_text('{"ask":"prolog"}\n{"ask":"epilog","why":"nothing within 1 s"}\n')
    misses.look()
    misses.look()
    assert misses.count == 2
    (message,) = caplog.messages
    assert "2 hooks of Slurm got no answer" in message
    assert "nothing within 1 s" in message


def test_an_agent_that_starts_again_does_not_count_them_twice(tmp_path: Path) -> None:
    path = tmp_path / "hook-misses"
    path.write_text("one\n")
    first = HookMisses(path)
    first.look()
    path.write_text("while it was away\n")
    again = HookMisses(path)
    again.look()
    assert (first.count, again.count) == (1, 1)


def test_a_hook_that_had_the_file_open_is_heard_too(tmp_path: Path) -> None:
    path = tmp_path / "hook-misses"
    with open(path, "a", encoding="utf-8") as late:
        late.write("early\n")
        late.flush()
        misses = HookMisses(path)
        misses.look()
        late.write("late\n")
    misses.look()
    assert misses.count == 2


def test_a_full_file_makes_room(tmp_path: Path) -> None:
    """Hooks stop writing at a mebibyte: from then on nothing more would be counted."""
    path = tmp_path / "hook-misses"
    path.write_bytes(b"x\n" * (1 << 19))
    misses = HookMisses(path)
    misses.look()
    assert misses.count == 1 << 19
    assert not path.exists()
