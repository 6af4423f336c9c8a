"""Shared file systems: real mount points, and commands that hang in the place of a file system that does."""

from __future__ import annotations

import select
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewatch.agent.validation import write_sensor
from nodewatch.model.samples import MountProbe, MountSample
from nodewatch.sensors import write_probe
from nodewatch.sensors.mounts import MountSensor, parse_mountinfo
from nodewatch.sensors.reading import Reading

MOUNTINFO = "36 35 98:0 / {path} rw,noatime master:1 - lustre 10.0.0.1@tcp:/fsx rw\n"


def read(sensor: MountSensor, seconds: float = 5.0) -> Reading:
    sensor.start(time.monotonic())
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        reading = sensor.result(time.monotonic())
        if reading is not None:
            return reading
        due = sensor.due_at()
        assert due is not None
        fds = list(sensor.filenos())
        select.select(fds, [], [], max(0.0, min(due, end) - time.monotonic()) if fds else 0.01)
    raise AssertionError("no reading")


def probes(reading: Reading) -> tuple[MountProbe, ...]:
    assert isinstance(reading.sample, MountSample), reading
    return reading.sample.mounts


@given(st.text())
def test_mountinfo_never_raises(text: str) -> None:
    parse_mountinfo(text)


def test_mountinfo() -> None:
    text = MOUNTINFO.format(path="/fsx") + MOUNTINFO.format(path="/with\\040space") + "torn line\n"
    assert parse_mountinfo(text) == {"/fsx": "lustre", "/with space": "lustre"}


def test_a_mount_that_answers_and_one_that_is_missing(tmp_path: Path) -> None:
    missing = str(tmp_path)
    sensor = MountSensor(["/proc", missing], deadline_s=3.0)
    there, gone = probes(read(sensor))
    assert (there.is_mounted, there.answered, there.error, there.fs_type) == (True, True, None, "proc")
    assert (gone.path, gone.is_mounted) == (missing, False)


def test_a_mount_that_hangs_is_asked_by_one_child_only(tmp_path: Path) -> None:
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(MOUNTINFO.format(path="/fsx"))
    gate = tmp_path / "gate"
    started = tmp_path / "started"
    script = f"echo x >> {started}; while [ ! -e {gate} ]; do sleep 0.02; done"
    sensor = MountSensor(["/fsx"], deadline_s=0.3, mountinfo=mountinfo, argv=("sh", "-c", script))
    began = time.monotonic()
    (first,) = probes(read(sensor))
    assert 0.3 <= time.monotonic() - began < 1.0
    assert (first.is_mounted, first.answered) == (True, False)
    began = time.monotonic()
    (second,) = probes(read(sensor))
    # It hangs for longer than the deadline already: the answer is there at once.
    assert time.monotonic() - began < 0.2
    assert (second.answered, second.seconds > first.seconds) == (False, True)
    assert started.read_text().count("x") == 1
    gate.touch()
    time.sleep(0.2)
    (third,) = probes(read(sensor))
    assert (third.answered, third.error) == (True, None)
    (fourth,) = probes(read(sensor))
    assert fourth.answered
    assert started.read_text().count("x") == 2
    sensor.close()


def test_close_does_not_wait_for_a_child(tmp_path: Path) -> None:
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(MOUNTINFO.format(path="/fsx"))
    sensor = MountSensor(["/fsx"], deadline_s=0.1, mountinfo=mountinfo, argv=("sleep", "100"))
    read(sensor)
    began = time.monotonic()
    sensor.close()
    assert time.monotonic() - began < 0.5


def test_an_error_for_an_answer_is_told(tmp_path: Path) -> None:
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(MOUNTINFO.format(path="/fsx-that-is-not-there"))
    (probe,) = probes(read(MountSensor(["/fsx-that-is-not-there"], deadline_s=3.0, mountinfo=mountinfo)))
    assert probe.answered
    assert probe.error is not None
    assert "No such file" in probe.error


def test_no_file_systems_is_not_applicable_and_no_mountinfo_an_error(tmp_path: Path) -> None:
    assert read(MountSensor([], deadline_s=1.0)).not_applicable
    assert "cannot be read" in (read(MountSensor(["/fsx"], deadline_s=1.0, mountinfo=tmp_path / "no")).error or "")
    absent = MountSensor(["/proc"], deadline_s=1.0, argv=("no-such-command-here",))
    assert "cannot be read or asked" in (read(absent).error or "")


def test_nothing_is_read_that_was_not_asked_for() -> None:
    sensor = MountSensor(["/proc"], deadline_s=1.0)
    assert sensor.result(0.0) is None
    assert sensor.due_at() is None
    assert sensor.filenos() == ()


def test_writing(tmp_path: Path) -> None:
    assert write_probe.probe(str(tmp_path)) is None
    assert list(tmp_path.iterdir()) == []
    said = write_probe.probe(str(tmp_path / "nowhere"))
    assert said is not None
    assert "cannot be written" in said


def test_writing_as_a_program() -> None:
    (probe,) = probes(read(write_sensor(["/proc"], deadline_s=5.0)))
    assert probe.answered
    assert "cannot be written" in (probe.error or "")
    script = write_probe.__file__
    ended = subprocess.run(
        [sys.executable, "-I", "-S", script, "/nowhere"], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr


@pytest.mark.skipif(not Path("/dev/shm").is_mount(), reason="/dev/shm is no mount here")
def test_writing_to_a_mount() -> None:
    (probe,) = probes(read(write_sensor(["/dev/shm"], deadline_s=5.0)))
    assert (probe.answered, probe.error) == (True, None)
