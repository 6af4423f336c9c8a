"""The table of instance types."""

from __future__ import annotations

import pytest

from nodewatch.knowledge.instance_types import TABLE, expected_gpus, parse

GIB = 1 << 30


@pytest.mark.parametrize(
    ("name", "gpus"),
    [
        ("p4d.24xlarge", 8),
        ("p4de.24xlarge", 8),
        ("p5.48xlarge", 8),
        ("p5e.48xlarge", 8),
        ("p5en.48xlarge", 8),
        ("p6-b200.48xlarge", 8),
        ("p6-b300.48xlarge", 8),
        ("p6e-gb200.36xlarge", 4),
        ("p3dn.24xlarge", 8),
        ("g4dn.metal", 8),
        ("g5.12xlarge", 4),
        ("g5.xlarge", 1),
        ("g6.48xlarge", 8),
        ("trn1.32xlarge", 0),
        ("m7i.large", None),
        ("", None),
    ],
)
def test_gpus(name: str, gpus: int | None) -> None:
    assert expected_gpus(name) == gpus


@pytest.mark.parametrize(
    ("name", "efa", "nvlinks", "memory_mib", "neuron", "vcpus", "memory_gib"),
    [
        ("p4d.24xlarge", 4, 12, 40960, 0, 96, 1152),
        ("p4de.24xlarge", 4, 12, 81920, 0, 96, 1152),
        ("p5.48xlarge", 32, 18, 81559, 0, 192, 2048),
        ("p5e.48xlarge", 32, 18, 143771, 0, 192, 2048),
        ("p5en.48xlarge", 16, 18, 143771, 0, 192, 2048),
        ("p6-b200.48xlarge", 8, 18, 183359, 0, 192, 2048),
        ("g5.48xlarge", None, 0, 23028, 0, 192, 768),
        ("g6e.12xlarge", None, 0, 46068, 0, 48, 384),
        ("trn1.32xlarge", 8, 0, 0, 16, 128, 512),
        ("trn1n.32xlarge", 16, 0, 0, 16, 128, 512),
        ("trn2.48xlarge", 16, 0, 0, 16, 192, 2048),
        ("trn2u.48xlarge", 16, 0, 0, 16, 192, 2048),
        ("inf1.6xlarge", None, 0, 0, 4, 24, 48),
        ("inf2.48xlarge", None, 0, 0, 12, 192, 768),
        # A part of a board: its links to the other GPUs are down on purpose.
        ("p5.4xlarge", None, 0, 81559, 0, 16, 256),
        ("p3.8xlarge", None, 0, 16160, 0, 32, 244),
    ],
)
def test_what_else_a_type_has(
    name: str, efa: int | None, nvlinks: int, memory_mib: int, neuron: int, vcpus: int, memory_gib: int
) -> None:
    row = TABLE[name]
    assert (row.efa_devices, row.nvlinks_per_gpu, row.gpu_memory_mib) == (efa, nvlinks, memory_mib)
    assert (row.neuron_devices, row.vcpus, row.memory_gib) == (neuron, vcpus, memory_gib)


@pytest.mark.parametrize(
    ("name", "size", "floor"),
    [("p4d.24xlarge", GIB, 208.0), ("p5.48xlarge", 16 * GIB, 431.0), ("p5en.48xlarge", 16 * GIB, 431.0)],
)
def test_floors(name: str, size: int, floor: float) -> None:
    assert dict(TABLE[name].nccl_floor)[size] == floor
    assert TABLE[name].nccl_why


def test_what_is_reached_without_the_switches_is_below_the_floor() -> None:
    for row in TABLE.values():
        for size, least in row.nccl_least:
            assert least < max(speed for at, speed in row.nccl_floor if at <= size)


def test_each_row_has_a_source_and_an_accelerator() -> None:
    for row in TABLE.values():
        assert row.source
        assert bool(row.gpus) == bool(row.gpu)
        assert row.gpus or row.neuron_devices


def test_a_row_without_a_known_source_is_refused() -> None:
    head = '[source]\naws = "a"\n[gpu]\n[nccl]\n[types]\n'
    text = head + 'x = { gpus = 0, gpu = "", vcpus = 1, memory_gib = 1, source = ["b"] }\n'
    with pytest.raises(ValueError, match="not in"):
        parse(text)
    assert parse(text.replace('["b"]', '["aws"]'))["x"].efa_devices is None
