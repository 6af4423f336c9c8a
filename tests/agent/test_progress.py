"""What the agent's messages carry of jobs' progress: news soon, the same again now and then, and nothing that is not known."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from nodewatch.agent.progress import REPEAT_S, STALE_S, TELL_S, GpuIdleness, Progress
from nodewatch.model.gpu_samples import Gpu, GpuSample
from nodewatch.sensors.heartbeats import HeartbeatFiles


class Node:
    """A node's heartbeats and the agent's clock."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.now = 1000.0
        files = HeartbeatFiles(root, clock=lambda: 0.0, mounts=root / "none")
        self.progress = Progress(files, clock=lambda: self.now)

    def step(self, step: int, *, job: int = 17) -> None:
        path = self.root / str(job) / "heartbeats"
        path.mkdir(parents=True, exist_ok=True)
        (path / "0").write_text(json.dumps({"v": 1, "rank": 0, "step": step, "pad": "x" * step}))

    def says(self) -> object:
        """What the next message carries, which the controller takes."""
        self.progress.look()
        part = self.progress.part()
        self.progress.sent(part)
        return part.get("jobs", "nothing")


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def step_of(told: object) -> object:
    return told["17"]["ranks"]["0"]["step"] if isinstance(told, dict) and told else told


def test_without_jobs_it_is_said_once_that_there_are_none(node: Node) -> None:
    assert node.says() == {}
    node.now += 10 * REPEAT_S
    assert node.says() == "nothing"


def test_a_step_is_told_once_and_not_too_soon_after_the_last(node: Node) -> None:
    node.step(1)
    assert step_of(node.says()) == 1
    node.step(2)
    assert node.says() == "nothing"
    node.now += TELL_S
    assert step_of(node.says()) == 2
    node.now += TELL_S
    assert node.says() == "nothing"


def test_a_job_that_stands_still_is_told_again_with_its_standstill(node: Node) -> None:
    node.step(1)
    node.says()
    node.now += REPEAT_S
    told = node.says()
    assert isinstance(told, dict)
    assert told["17"]["ranks"]["0"]["still_s"] == REPEAT_S


def test_what_the_controller_did_not_take_is_told_again(node: Node) -> None:
    node.step(1)
    node.progress.look()
    assert step_of(node.progress.part()["jobs"]) == 1
    assert step_of(node.progress.part()["jobs"]) == 1


def test_the_end_of_the_last_job_is_news(node: Node) -> None:
    node.step(1)
    node.says()
    (node.root / "17" / "heartbeats" / "0").unlink()
    (node.root / "17" / "heartbeats").rmdir()
    node.now += TELL_S
    assert node.says() == {}


def test_files_that_cannot_be_looked_at_are_no_standstill(node: Node) -> None:
    node.step(1)
    node.says()
    node.now += STALE_S + 1
    assert "jobs" not in node.progress.part()


def test_the_ranks_of_a_job_are_known_by_its_user(node: Node) -> None:
    node.step(4)
    node.progress.look()
    known = node.progress.ranks(17)
    assert known is not None
    assert known[1][0].step == 4
    assert node.progress.ranks(18) is None


def test_it_looks_by_itself(node: Node, tmp_path: Path) -> None:
    looked = threading.Event()

    class Files(HeartbeatFiles):
        def look(self, now: float) -> dict:  # type: ignore[type-arg]
            if looked.is_set():
                raise RuntimeError("a second look that fails")
            looked.set()
            return super().look(now)

    progress = Progress(Files(tmp_path, clock=lambda: 0.0), clock=lambda: 1.0, period_s=0.01)
    progress.start()
    try:
        assert looked.wait(20)
    finally:
        progress.stop()


def sample(*used: int | None) -> GpuSample:
    gpus = tuple(
        Gpu(index=n, uuid=f"GPU-{n}", pci_bus_id=f"{n}", utilization_percent=each) for n, each in enumerate(used)
    )
    return GpuSample(gpus=gpus)


def test_gpus_are_idle_since_all_of_them_are() -> None:
    clock = [0.0]
    idleness = GpuIdleness(lambda: clock[0])
    assert idleness.idle_s() is None
    for now, reading, expected in [
        (10.0, sample(0, 40), None),
        (20.0, sample(0, 0), 0.0),
        (50.0, sample(0, 0), 30.0),
        (60.0, sample(0, None), None),
        (70.0, sample(0, 0), 0.0),
        (80.0, sample(), None),
    ]:
        clock[0] = now
        idleness.take(reading)
        assert idleness.idle_s() == expected


def test_idle_gpus_are_told_with_or_without_jobs(node: Node) -> None:
    node.progress.gpus.take(sample(0))
    node.now += 100
    node.progress.look()
    assert node.progress.part() == {"gpus_idle_s": 100, "jobs": {}}
