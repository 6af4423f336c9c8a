"""One writer a directory: who is refused, who may follow whom, and what a writer that was thought dead may still do."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from live_run import TRAIN
from nodewatch_train.lock import LOCK, DirectoryLock, Owner
from nodewatch_train.manifest import CheckpointError, RefusedError

ME = Owner(job=18, restart=0, host="n2", boot_id="b2", pid=11, token="mine")
HOLDER = """
import sys, time
from pathlib import Path
from nodewatch_train.lock import DirectoryLock, Owner
DirectoryLock(Path(sys.argv[1]), owner=Owner.from_environment({"SLURM_JOB_ID": "17", "SLURMD_NODENAME": "n1"})).acquire()
print("held", flush=True)
time.sleep(60)
"""


class Time:
    """A clock that sleeping moves on; `meanwhile` is done at each sleep."""

    def __init__(self) -> None:
        self.now = 0.0
        self.meanwhile: Callable[[], object] = lambda: None

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.meanwhile()


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A live process of job 17 on n1 that holds the lock of tmp_path."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(TRAIN)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def lock(root: Path, owner: Owner = ME, time: Time | None = None) -> DirectoryLock:
    time = time or Time()
    return DirectoryLock(root, owner=owner, sleep=time.sleep, clock=time, beat_s=5.0)


def leave_lease(root: Path, **changes: object) -> None:
    """What a holder on another machine, whose flock is not seen here, left in the file."""
    lease = {"job": 17, "restart": 0, "host": "n1", "boot_id": "b1", "pid": 7, "token": "theirs", "beat": 3}
    (root / LOCK).write_text(json.dumps(lease | changes) + "\n")


def test_a_second_job_is_refused_and_a_killed_one_holds_nothing(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    with pytest.raises(RefusedError) as refused:
        lock(tmp_path).acquire()
    assert str(refused.value).startswith(
        f"{tmp_path} is being written by job 17 (start 1), process {holder.pid} on n1: "
    )
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    lock(tmp_path, replace(ME, host="n1")).acquire()


def test_the_next_life_of_the_same_job_waits_for_the_last_one_to_die(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    time = Time()

    def kill_after_a_while() -> None:
        if time.now > 3:
            holder.kill()
            holder.wait()

    time.meanwhile = kill_after_a_while
    lock(tmp_path, replace(ME, job=17, restart=1), time).acquire()
    assert 3 < time.now < 5


def test_it_does_not_wait_for_ever(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    time = Time()
    with pytest.raises(RefusedError, match="job 17"):
        lock(tmp_path, replace(ME, job=17, restart=1), time).acquire()
    assert 40 <= time.now < 42


@pytest.mark.parametrize(
    ("lease", "mine"),
    [
        ({"host": "n2", "boot_id": "before"}, ME),
        ({"host": "n2", "boot_id": "b2"}, ME),
        ({"job": 18, "restart": 0}, replace(ME, restart=1)),
    ],
    ids=["this machine before its boot", "a dead process of this machine", "an earlier start of this job"],
)
def test_who_is_known_to_be_dead_is_not_waited_for(tmp_path: Path, lease: dict[str, object], mine: Owner) -> None:
    leave_lease(tmp_path, **lease)
    time = Time()
    taken = lock(tmp_path, mine, time)
    taken.acquire()
    taken.check()
    assert time.now < 1


def test_a_lease_of_another_machine_that_nobody_renews_ends(tmp_path: Path) -> None:
    leave_lease(tmp_path)
    time = Time()
    lock(tmp_path, time=time).acquire()
    assert 16 <= time.now < 18


def test_a_lease_that_is_renewed_is_believed_without_any_flock(tmp_path: Path) -> None:
    leave_lease(tmp_path)
    time = Time()
    time.meanwhile = lambda: leave_lease(tmp_path, beat=4) if time.now > 4 else None
    with pytest.raises(RefusedError, match=r"job 17 \(start 1\), process 7 on n1"):
        lock(tmp_path, time=time).acquire()
    assert time.now < 6


def test_an_earlier_start_may_not_take_it_from_a_later_one(tmp_path: Path) -> None:
    leave_lease(tmp_path, job=18, restart=2)
    time = Time()
    time.meanwhile = lambda: leave_lease(tmp_path, job=18, restart=2, beat=4)
    with pytest.raises(RefusedError, match=r"job 18 \(start 3\)"):
        lock(tmp_path, time=time).acquire()


def test_who_was_thought_dead_commits_nothing_more(tmp_path: Path) -> None:
    mine = lock(tmp_path)
    mine.acquire()
    mine.check()
    leave_lease(tmp_path)
    with pytest.raises(CheckpointError, match=r"was taken by job 17 .* may not write there any more"):
        mine.check()
    mine.release()
    assert "theirs" in (tmp_path / LOCK).read_text()


def test_given_back_it_is_free_at_once_on_any_machine(tmp_path: Path) -> None:
    first = lock(tmp_path)
    first.acquire()
    first.release()
    time = Time()
    lock(tmp_path, replace(ME, host="n3", job=99), time).acquire()
    assert time.now < 1


@pytest.mark.parametrize("text", ["", "garbage", "[1]", "{}", '{"job": "x"}'])
def test_a_garbled_lease_is_one_that_nobody_renews(tmp_path: Path, text: str) -> None:
    (tmp_path / LOCK).write_text(text)
    lock(tmp_path).acquire()


def test_a_lock_that_cannot_be_opened_is_said(tmp_path: Path) -> None:
    (tmp_path / LOCK).mkdir()
    with pytest.raises(CheckpointError, match="cannot be opened"):
        lock(tmp_path).acquire()
