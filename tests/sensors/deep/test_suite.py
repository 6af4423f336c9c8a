"""Which diagnostics a node runs: by what it has, what is installed, and what the site says; and all of them in their order."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nodewatch.checks._api import Phase, load_checks
from nodewatch.config.deep import TOOLS, DeepConfig
from nodewatch.sensors.deep.suite import Suite, deep_sensors, efa_seen, gpus_seen
from nodewatch.sensors.reading import Reading

Told = Callable[..., Path]
Run = Callable[..., Reading]
TYPE = "p5.48xlarge"


@pytest.fixture
def config(tmp_path: Path) -> DeepConfig:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = int(server.getsockname()[1])
    return DeepConfig(
        lock=tmp_path / "deep.lock",
        fi_pingpong_port=port,
        fi_pingpong_devices=1,
        cpu_seconds=1,
        memory_seconds=1,
        memory_max_mib=128,
        disk_directories=(str(tmp_path),),
        disk_mib=4,
    )


def suite(config: DeepConfig, **known: Any) -> Suite:
    return deep_sensors(config, **{"instance_type": TYPE, "gpus": 8, "efa_devices": 32, **known})


def names(found: Suite) -> list[str]:
    return [sensor.name for sensor in found.sensors]


def test_all_of_them_in_order_prove_a_good_node(told: Told, run: Run, config: DeepConfig) -> None:
    found = suite(config)
    assert names(found) == list(TOOLS) and found.not_run == ()
    checks = load_checks().values()
    for sensor in found.sensors:
        reading = run(sensor, 60.0)
        assert reading.sample is not None and type(reading.sample) is sensor.reads, reading
        judging = [spec for spec in checks if spec.reads is sensor.reads]
        assert judging and sensor.deadline_s > 0
        assert [finding for spec in judging for finding in spec.run(reading.sample)] == []


def test_the_checks_of_the_new_samples_are_deep_ones() -> None:
    phases = {name: load_checks()[name].phases for name in ("stress_cpu", "stress_memory", "disk_write")}
    assert set(phases.values()) == {Phase.DEEP}


def test_a_machine_without_gpu_and_efa(told: Told, config: DeepConfig) -> None:
    found = suite(config, instance_type="m7i.large", gpus=0, efa_devices=0)
    assert names(found) == ["cpu", "memory", "disk"]
    assert found.not_run == (
        ("dcgm", "the machine has no GPU"),
        ("nccl", "the machine has no GPU"),
        ("fi_info", "the machine has no EFA device"),
        ("fi_pingpong", "the machine has no EFA device"),
    )


def test_tools_that_are_not_there(
    config: DeepConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, run: Run
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = suite(config)
    assert names(found) == ["disk"]
    assert dict(found.not_run)["dcgm"].startswith("dcgmi is not installed")
    assert all(why for _, why in found.not_run)
    told_to = suite(replace(config, dcgm="on"))
    assert names(told_to) == ["dcgm", "disk"]
    error = run(told_to.sensors[0]).error
    assert error is not None and "dcgmi is not installed" in error


def test_what_is_switched_off(told: Told, config: DeepConfig) -> None:
    found = suite(replace(config, **dict.fromkeys(TOOLS, "off")))
    assert found.sensors == () and [name for name, _ in found.not_run] == list(TOOLS)
    assert all("switched off" in why for _, why in found.not_run)


def test_no_directory_to_write_to(told: Told, config: DeepConfig) -> None:
    for mode in ("auto", "on"):
        found = suite(replace(config, disk_directories=(), disk=mode))
        assert found.not_run == (("disk", "no local directory is configured: set disk_directories in [deep]"),)


def test_the_levels_deadline_unless_a_site_has_its_own(told: Told, config: DeepConfig) -> None:
    for level, own, expected in (
        (1, 0.0, 300.0),
        (2, 0.0, 900.0),
        (3, 0.0, 3600.0),
        (4, 0.0, 10800.0),
        (4, 60.0, 60.0),
    ):
        found = suite(replace(config, dcgm_level=level, dcgm_deadline_s=own))
        assert found.sensors[0].deadline_s == expected


def machine(root: Path) -> Path:
    for number in range(2):
        (root / f"proc/driver/nvidia/gpus/0000:0{number}:00.0").mkdir(parents=True)
        (root / f"sys/class/infiniband/rdmap{number}/device").mkdir(parents=True)
        (root / f"sys/class/infiniband/rdmap{number}/device/vendor").write_text("0x1d0f\n")
    (root / "sys/class/infiniband/mlx5_0/device").mkdir(parents=True)
    (root / "sys/class/infiniband/mlx5_0/device/vendor").write_text("0x15b3\n")
    return root


def test_where_nothing_is_known_the_machine_is_looked_at(told: Told, config: DeepConfig, tmp_path: Path) -> None:
    root = machine(tmp_path / "root")
    assert (gpus_seen(root), efa_seen(root)) == (2, 2)
    found = suite(config, instance_type="", gpus=None, efa_devices=None, root=root)
    assert names(found)[:4] == ["dcgm", "nccl", "fi_info", "fi_pingpong"]
    nothing = suite(config, instance_type="", gpus=None, efa_devices=None, root=tmp_path / "none")
    assert names(nothing) == ["cpu", "memory", "disk"]
