"""The heartbeats of users' ranks, on real files: what is no heartbeat is unknown, and nothing makes the reader wait or fail."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nodewatch.model.heartbeats import MOST_RANKS, Phase
from nodewatch.sensors.heartbeats import HeartbeatFiles


class Node:
    """A node's directory of jobs, and a reader of it whose clocks move when told to."""

    def __init__(self, root: Path) -> None:
        self.root = root / "jobs"
        self.root.mkdir()
        self.wall = 1_764_000_000.0
        self.mounts = root / "mounts"
        self.mounts.write_text("tmpfs /run tmpfs rw 0 0\n")
        self.files = HeartbeatFiles(self.root, clock=lambda: self.wall, mounts=self.mounts)

    def of(self, job: int | str) -> Path:
        path = self.root / str(job) / "heartbeats"
        path.mkdir(parents=True, exist_ok=True)
        return path

    def write(self, job: int, rank: int, step: int, *, age_s: float = 0.0, **more: Any) -> Path:
        path = self.of(job) / str(rank)
        data = {"v": 1, "rank": rank, "step": step, "t": self.wall, "phase": "step", **more}
        with path.open("r+b" if path.exists() else "wb") as file:
            os.pwrite(file.fileno(), json.dumps(data).encode().ljust(256), 0)
        os.utime(path, ns=(0, int((self.wall - age_s) * 1e9)))
        return path

    def look(self, now: float) -> dict[int, dict[int, tuple[int, float]]]:
        return {
            job: {rank: (beat.step, beat.still_s) for rank, beat in beats.ranks.items()}
            for job, beats in self.files.look(now).items()
        }


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_each_rank_of_each_job_is_read(node: Node) -> None:
    node.write(17, 0, 5, step_s=0.4, pid=4711)
    node.write(17, 1, 6)
    node.write(18, 0, 9, phase="saving")
    jobs = node.files.look(10.0)
    assert {job: sorted(beats.ranks) for job, beats in jobs.items()} == {17: [0, 1], 18: [0]}
    assert (jobs[17].ranks[0].step_s, jobs[17].ranks[0].pid, jobs[18].ranks[0].phase) == (0.4, 4711, Phase.SAVING)
    assert node.files.owner(17) == os.getuid()


def test_a_rank_stands_still_while_its_step_is_the_same(node: Node) -> None:
    node.write(17, 0, 5)
    assert node.look(100.0) == {17: {0: (5, 0.0)}}
    assert node.look(160.0) == {17: {0: (5, 60.0)}}
    # Written again without a step: that it lives is no progress.
    node.wall += 61
    node.write(17, 0, 5)
    assert node.look(161.0) == {17: {0: (5, 61.0)}}
    node.wall += 1
    node.write(17, 0, 6)
    assert node.look(162.0) == {17: {0: (6, 0.0)}}


def test_a_file_is_as_old_as_it_says_when_it_is_first_seen(node: Node) -> None:
    node.write(17, 0, 5, age_s=300.0)
    node.write(17, 1, 5, age_s=-4000.0)
    found = node.look(7.0)[17]
    assert found[0] == (5, pytest.approx(300.0, abs=0.01))
    assert found[1] == (5, 0.0)


def test_a_write_that_was_seen_half_is_no_loss(node: Node) -> None:
    path = node.write(17, 0, 5)
    node.look(1.0)
    path.write_bytes(b'{"v":1,"rank":0,"st')
    assert node.look(3.0) == {17: {0: (5, 2.0)}}
    assert node.look(5.0) == {17: {}}
    assert node.files.look(6.0)[17].garbled == 1
    node.wall += 10
    node.write(17, 0, 6)
    assert node.look(7.0) == {17: {0: (6, 0.0)}}


def link(path: Path, other: Path) -> None:
    path.symlink_to(other)


def pipe(path: Path, _other: Path) -> None:
    os.mkfifo(path)


def directory(path: Path, _other: Path) -> None:
    path.mkdir()


def long(path: Path, other: Path) -> None:
    path.write_bytes(other.read_bytes() + b" " * 100_000)


def another_rank(path: Path, other: Path) -> None:
    path.write_bytes(other.read_bytes())


@pytest.mark.parametrize("make", [link, pipe, directory, long, another_rank])
def test_what_is_no_heartbeat_is_unknown(node: Node, make: Callable[[Path, Path], None]) -> None:
    other = node.write(17, 0, 5)
    make(node.of(17) / "1", other)
    jobs = node.files.look(1.0)
    assert sorted(jobs[17].ranks) == [0]
    assert jobs[17].garbled == 1


def test_other_names_are_nothing(node: Node) -> None:
    node.write(17, 0, 5)
    for name in ("01", ".0.tmp", "rank0", "-1"):
        (node.of(17) / name).write_text("{}")
    (node.root / "save-now").write_text("")
    node.of("x")
    node.of("0")
    jobs = node.files.look(1.0)
    assert sorted(jobs) == [17]
    assert jobs[17].garbled == 0


def test_a_job_cannot_show_the_heartbeats_of_another(node: Node) -> None:
    node.write(17, 0, 5)
    (node.root / "18").symlink_to(node.root / "17")
    (node.root / "19").mkdir()
    (node.root / "19" / "heartbeats").symlink_to(node.of(17))
    assert sorted(node.look(1.0)) == [17]


def test_a_file_of_another_user_is_none_of_the_job(node: Node) -> None:
    node.write(17, 0, 5)
    path = node.write(17, 1, 5)
    if os.getuid() == 0:
        os.chown(path, 12345, 12345)
        expected = [0]
    else:
        # Without root nobody can make such a file; one that cannot be opened is unknown as well.
        path.chmod(0)
        expected = [0]
    assert sorted(node.look(1.0)[17]) == expected


def test_what_a_user_mounted_is_not_entered(node: Node) -> None:
    node.write(17, 0, 5)
    node.write(18, 0, 5)
    node.mounts.write_text(f"tmpfs /run tmpfs rw 0 0\nsshfs {node.root}/17/heartbeats fuse.sshfs rw 0 0\n")
    assert sorted(node.look(1.0)) == [18]


def test_so_many_are_read_and_no_more(node: Node) -> None:
    for rank in range(MOST_RANKS + 10):
        node.write(17, rank, 1)
    jobs = node.files.look(1.0)
    assert len(jobs[17].ranks) == MOST_RANKS
    assert jobs[17].garbled == 10


def test_a_job_that_ended_is_forgotten(node: Node) -> None:
    path = node.write(17, 0, 5)
    node.look(1.0)
    path.unlink()
    assert node.look(2.0) == {17: {}}
    (node.root / "17" / "heartbeats").rmdir()
    assert node.look(3.0) == {}
    assert node.files.owner(17) is None


def test_without_a_directory_there_are_no_jobs(tmp_path: Path) -> None:
    assert HeartbeatFiles(tmp_path / "none", clock=lambda: 0.0).look(1.0) == {}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["0", "1", "7", "x"]), st.binary(max_size=300)), max_size=6))
def test_no_content_makes_the_reader_fail(node: Node, writes: list[tuple[str, bytes]]) -> None:
    for number, (name, content) in enumerate(writes):
        (node.of(17) / name).write_bytes(content)
        for job in node.files.look(float(number)).values():
            assert set(job.ranks) <= {0, 1, 7}
