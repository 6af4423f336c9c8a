"""Rows that a site learnt: written as they are read, refused when they make no sense or contradict the built-in table."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nodewatch.knowledge.instance_types import TABLE, InstanceType
from nodewatch.knowledge.learnt import contradiction, parse_learnt, to_toml

ROW = InstanceType(
    name="p9.48xlarge",
    gpus=8,
    gpu='NVIDIA "H900"',
    source="learnt on n1 2026-11-24",
    nvlinks_per_gpu=18,
    gpu_memory_mib=183359,
    efa_devices=32,
    vcpus=192,
    memory_gib=2048,
    nccl_floor=((134217728, 356.4), (1073741824, 397.0)),
    nccl_why="90 % of what was measured, by size.",
)
REQUIRED = 'gpus = 8\nvcpus = 4\nmemory_gib = 2\nsource = ["me"]\n'


@pytest.mark.parametrize("row", [ROW, InstanceType(name="m9.large", gpus=0, gpu="", source="x", vcpus=2, memory_gib=8)])
def test_a_row_is_read_as_it_was_written(row: InstanceType) -> None:
    assert parse_learnt(to_toml(row), where="f") == {row.name: row}


def test_several_rows_and_a_short_one() -> None:
    text = to_toml(ROW) + '\n[types."x1.large"]\n' + REQUIRED
    rows = parse_learnt(text, where="f")
    assert sorted(rows) == ["p9.48xlarge", "x1.large"]
    assert (rows["x1.large"].gpus, rows["x1.large"].efa_devices, rows["x1.large"].source) == (8, None, "me")
    assert parse_learnt("", where="f") == {}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[", "f is not valid TOML"),
        ("gpus = 8\n", "holds tables"),
        ("types = 3\n", "holds tables"),
        ('[types]\n"x.y" = 3\n', "must be a table"),
        ('[types."x.y"]\ngpus = 8\n', "'vcpus' is required and missing"),
        ('[types."x.y"]\n' + REQUIRED + "gpu_count = 8\n", "unknown key 'gpu_count'"),
        ('[types."x.y"]\n' + REQUIRED.replace("gpus = 8", 'gpus = "8"'), "gpus must be a whole number"),
        ('[types."x.y"]\n' + REQUIRED.replace("gpus = 8", "gpus = true"), "gpus must be a whole number"),
        ('[types."x.y"]\n' + REQUIRED.replace("gpus = 8", "gpus = -1"), "gpus must be a whole number"),
        ('[types."x.y"]\n' + REQUIRED.replace('["me"]', '"me"'), "source must be a list"),
        ('[types."x.y"]\n' + REQUIRED.replace('["me"]', "[]"), "source must be a list"),
        ('[types."x.y"]\n' + REQUIRED + "gpu = 3\n", "gpu must be text"),
        ('[types."x.y"]\n' + REQUIRED + "nccl_floor = [3]\n", "must be a list of"),
        ('[types."x.y"]\n' + REQUIRED + "nccl_floor = [[2, 1.0], [1, 1.0]]\n", "sizes must rise"),
        ('[types."x.y"]\n' + REQUIRED + "nccl_floor = [[2, nan]]\n", "speeds be above 0"),
    ],
)
def test_what_is_no_row_is_refused_in_one_sentence(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=r"^f") as caught:
        parse_learnt(text, where="f")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value).partition(" is not valid TOML")[0]


def test_contradictions() -> None:
    known = TABLE["p5.48xlarge"]
    assert contradiction(known, known) is None
    assert contradiction(replace(known, memory_gib=1996, efa_devices=None, nccl_floor=()), known) is None
    assert "gpus is 7 here and 8 in the built-in table" in str(contradiction(replace(known, gpus=7), known))
    assert "efa_devices is 31" in str(contradiction(replace(known, efa_devices=31), known))
    assert "memory_gib is 1024" in str(contradiction(replace(known, memory_gib=1024), known))
    assert "nccl_floor" in str(contradiction(replace(known, nccl_floor=((1, 1.0),)), known))
