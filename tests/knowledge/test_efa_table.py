"""The table of fabrics: complete, with a source for each row, and naming types that exist."""

from __future__ import annotations

import pytest

from nodewatch.knowledge import instance_types
from nodewatch.knowledge.efa import TABLE, parse

SOURCE = '[source]\ns = "x"\n'
NONE = "[counters]\n[across]\n"


def test_types_are_known_and_floors_rise_with_size() -> None:
    assert TABLE.across
    for name, row in TABLE.across.items():
        assert name in instance_types.TABLE
        assert [speed for _, speed in row.floor] == sorted(speed for _, speed in row.floor)


@pytest.mark.parametrize(
    "text",
    [
        SOURCE + '[across]\n[counters]\na = { about = "local", why = "w", source = "t" }\n',
        SOURCE + '[across]\n[counters]\na = { about = "x", why = "w", source = "s" }\n',
        SOURCE + '[counters]\n[across]\na = { machines = 2, floor = [[2, 1], [1, 1]], why = "w", source = "s" }\n',
    ],
)
def test_rows_that_are_not_complete_are_refused(text: str) -> None:
    parse(SOURCE + NONE)
    with pytest.raises(ValueError):
        parse(text)
