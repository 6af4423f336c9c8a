"""The table of instance types."""

from __future__ import annotations

import pytest

from nodewatch.knowledge.instance_types import TABLE, expected_gpus


@pytest.mark.parametrize(
    ("name", "gpus"),
    [
        ("p4d.24xlarge", 8),
        ("p4de.24xlarge", 8),
        ("p5.48xlarge", 8),
        ("p5e.48xlarge", 8),
        ("p5en.48xlarge", 8),
        ("p6-b200.48xlarge", 8),
        ("g5.12xlarge", 4),
        ("g5.xlarge", 1),
        ("g6.48xlarge", 8),
        ("m7i.large", None),
        ("", None),
    ],
)
def test_gpus(name: str, gpus: int | None) -> None:
    assert expected_gpus(name) == gpus


def test_each_row_has_a_source() -> None:
    assert all(row.source and row.gpu and row.gpus > 0 for row in TABLE.values())
