"""The word of a failed lifecycle script."""

from __future__ import annotations

from pathlib import Path

import pytest

from nodewatch.agent.bootstrap import NAME, failure


def test_a_machine_that_was_set_up_has_nothing_to_tell(tmp_path: Path) -> None:
    assert failure(tmp_path) == ""
    assert failure(tmp_path / "missing") == ""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"/fsx is not there\n", "/fsx is not there"),
        (b"two\nlines", "two lines"),
        (b"", "it does not say why"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"x" * 5000, "x" * 300),
    ],
)
def test_what_it_left_is_told_in_one_line(tmp_path: Path, text: bytes, told: str) -> None:
    (tmp_path / NAME).write_bytes(text)
    assert failure(tmp_path) == told
