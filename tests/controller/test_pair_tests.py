"""Runs as child processes: begun, ended, given way, past their deadline; and what a pair test says on the way."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nodewatch.config.pairs import PairsConfig
from nodewatch.controller.pair_results import PairEnded
from nodewatch.controller.pair_tests import SlurmPairs, gpus_of
from nodewatch.controller.pair_views import pair_status
from nodewatch.journal.story import sentences
from nodewatch.policy.rules import Group
from nodewatch.testing import World

NODES = ("n1", "n2")
GROUP = Group(name="gpu", nodes=NODES, partition="train", instance_type="p5.48xlarge")


@pytest.fixture
def scancel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A scancel that writes down how it was called."""
    said = tmp_path / "scancelled"
    tool = tmp_path / "bin" / "scancel"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\necho "$*" >> {said}\n', encoding="utf-8")
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tool.parent}{os.pathsep}{os.environ['PATH']}")
    return said


def shell(script: str, **more: object) -> PairsConfig:
    return PairsConfig(command=("sh", "-c", script, "{nodes}", "{tasks}", "{begin}", "{extra}"), **more)  # type: ignore[arg-type]


def until(runner: SlurmPairs, answered: Callable[[], bool] = lambda: True) -> list[PairEnded]:
    told: list[PairEnded] = []
    for _ in range(1000):
        told += runner.ended()
        if told and answered():
            return told
        time.sleep(0.01)
    raise AssertionError("no run ended")


def test_what_it_prints_comes_back_with_its_status() -> None:
    runner = SlurmPairs(shell('echo "$0 $*"; echo oops >&2; exit 3', extra=("--qos=x",)), time.time)
    runner.begin(NODES, GROUP)
    (ended,) = until(runner)
    assert (ended.nodes, ended.returncode, ended.cancelled, ended.is_late) == (NODES, 3, "", False)
    assert "oops" in ended.text
    assert "n1,n2 8 134217728 --qos=x" in ended.text
    assert runner.ended() == [], "told once"


def test_the_ranks_see_what_is_configured_and_no_key_of_the_controller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-the-head")
    runner = SlurmPairs(shell("env", environment={"FI_PROVIDER": "efa"}), time.time)
    runner.begin(NODES, GROUP)
    (ended,) = until(runner)
    assert "FI_PROVIDER=efa" in ended.text
    assert "PATH=" in ended.text
    assert "secret-of-the-head" not in ended.text


def test_a_command_that_is_not_there_is_told_as_ended() -> None:
    runner = SlurmPairs(PairsConfig(command=("no-such-salloc", "{nodes}")), time.time)
    runner.begin(NODES, GROUP)
    (ended,) = runner.ended()
    assert (ended.returncode, ended.text) == (127, "no-such-salloc: No such file or directory")


def test_one_that_gives_way_ends_and_its_job_is_cancelled(scancel: Path) -> None:
    runner = SlurmPairs(shell("sleep 60"), time.time)
    runner.begin(NODES, GROUP)
    runner.cancel(NODES, "a job waits")
    runner.cancel(NODES, "another word comes too late")
    (ended,) = until(runner)
    assert (ended.cancelled, ended.returncode) == ("a job waits", -15)
    for _ in range(500):
        runner.ended()
        if scancel.exists() and scancel.read_text().endswith("\n"):
            break
        time.sleep(0.01)
    assert "--name=nodewatch-pair" in scancel.read_text()
    assert "--nodelist=n1,n2" in scancel.read_text()


def test_one_past_its_deadline_is_late_and_a_deaf_one_is_killed(scancel: Path) -> None:
    now = [1000.0]
    runner = SlurmPairs(shell("trap '' TERM; echo up; while :; do sleep 0.05; done", deadline_s=60.0), lambda: now[0])
    runner.begin(NODES, GROUP)
    time.sleep(0.2)
    assert runner.ended() == []
    now[0] += 60.0
    assert runner.ended() == []
    now[0] += 10.0
    (ended,) = until(runner, scancel.exists)
    assert (ended.is_late, ended.returncode) == (True, -9)


def test_what_an_earlier_controller_left_is_cancelled_everywhere(scancel: Path) -> None:
    runner = SlurmPairs(PairsConfig(), time.time)
    runner.clear()
    for _ in range(500):
        runner.ended()
        if scancel.exists() and scancel.read_text().endswith("\n"):
            break
        time.sleep(0.01)
    assert scancel.read_text().startswith("--name=nodewatch-pair --user=")
    assert "--nodelist" not in scancel.read_text()


def test_the_number_of_gpus_is_configured_or_the_types() -> None:
    assert gpus_of(GROUP, PairsConfig()) == 8
    assert gpus_of(GROUP, PairsConfig(gpus_per_node=4)) == 4
    assert gpus_of(Group(name="g", nodes=NODES, partition="p"), PairsConfig()) is None


def test_at_most_so_many_pairs_run_at_once() -> None:
    world = World(nodes=6, spares=0)
    world.pairs_config = PairsConfig(at_once=1)
    world.restart_controller()
    world.run(seconds=3)
    world.ask_pairs(("n1", "n2", "n3", "n4", "n5", "n6"))
    for _ in range(100):
        world.run(seconds=1)
        assert len(world.pairs.jobs()) <= 1
    assert world.pairs.began == [("n1", "n2"), ("n3", "n4"), ("n5", "n6")]


def test_slurm_that_cannot_be_read_starts_nothing() -> None:
    world = World(nodes=2, spares=0)
    world.run(seconds=3)
    world.slurm.outage = True
    world.run(seconds=1)
    world.ask_pairs(NODES)
    world.run(seconds=30)
    assert world.pairs.began == []
    world.slurm.outage = False
    world.run(seconds=5)
    assert world.pairs.began == [NODES]


def test_what_an_operator_sees_and_reads_afterwards() -> None:
    world = World(nodes=4, spares=0)
    world.run(seconds=3)
    world.slow_link("n2")
    job = world.submit(nodes=1, auto_resume=None)
    world.run(seconds=2)
    key = world.ask_pairs(NODES)
    world.run(seconds=2)

    def status() -> dict[str, object]:
        return pair_status(key, world.engine.snapshot, world.engine.ledger)

    assert status()["state"] == "waiting"
    assert f"n1 is busy with {job}" in str(status()["why"])
    world.slurm.end_job(job, "COMPLETED", 0)
    world.run(seconds=3)
    assert (status()["state"], status()["why"]) == ("running", "0 runs ended; n1+n2 run")
    world.run(minutes=2)
    assert status()["state"] == "ended"
    assert status()["nodes"] == {"n1": "untold", "n2": "untold"}
    told = [item["text"] for item in sentences(world.journal.records, node="n1")]
    assert "a pair test of 2 nodes was asked for by ada" in told
    assert "NCCL with n2 was slow, 146.1 GB/s of at least 389" in told
    assert any(text.startswith("the pair test ended: every pair of n1, n2 was bad") for text in told)
    assert pair_status("pairs:0", world.engine.snapshot, world.engine.ledger)["state"] == "gone"
