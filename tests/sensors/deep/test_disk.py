"""A file written, synced and read back: on a real file system, and where it cannot be."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nodewatch.checks.disk_write import Thresholds, disk_write
from nodewatch.errors import SensorError
from nodewatch.model.stress_samples import DiskSample
from nodewatch.sensors.deep import disk, disk_probe
from nodewatch.sensors.deep.tool import Outcome, ToolSensor
from nodewatch.sensors.reading import Reading

Run = Callable[..., Reading]


def sensor(*directories: str, size: int = 8 << 20) -> ToolSensor:
    return ToolSensor("disk", disk.READS, lambda: disk.procedure(directories, size=size), deadline_s=60.0)


def sample(reading: Reading) -> DiskSample:
    assert isinstance(reading.sample, DiskSample), reading
    return reading.sample


def test_good_directories(run: Run, tmp_path: Path) -> None:
    found = sample(run(sensor(str(tmp_path), "/dev/shm")))
    assert list(disk_write(found, Thresholds())) == []
    for each in found.disks:
        assert (each.size, each.wrong_blocks, each.failed) == (8 << 20, 0, None)
        assert each.write_mb_per_s and each.read_mb_per_s
    assert list(tmp_path.iterdir()) == []


def test_directories_that_cannot_be_tested_are_unknown(run: Run, tmp_path: Path) -> None:
    found = sample(run(sensor(str(tmp_path / "none"), str(tmp_path))))
    assert [(each.failed, each.error) for each in found.disks] == [("open", "ENOENT"), (None, "")]
    with pytest.raises(SensorError, match="ould not be tested"):
        list(disk_write(found, Thresholds()))


def test_a_full_disk_is_not_filled(run: Run, tmp_path: Path) -> None:
    found = sample(run(sensor(str(tmp_path), size=1 << 60)))
    assert [(each.failed, each.error, each.size) for each in found.disks] == [("open", "ENOSPC", 0)]


def test_nothing_stays_when_it_is_stopped(tmp_path: Path) -> None:
    tool = sensor(str(tmp_path), size=1 << 30)
    tool.start(time.monotonic())
    time.sleep(0.5)
    tool.stop("it was stopped: the node is wanted for a job", time.monotonic())
    for _ in range(500):
        reading = tool.result(time.monotonic())
        if reading is not None:
            break
        time.sleep(0.02)
    assert reading == Reading(error="it was stopped: the node is wanted for a job")
    assert list(tmp_path.iterdir()) == []


def test_other_bytes_are_counted_by_block() -> None:
    said: dict[str, object] = {"wrong_blocks": 0}
    good = os.urandom(1 << 20)
    bad = bytearray(good)
    bad[4096] ^= 1
    bad[9000] ^= 0x80
    disk_probe._compare(said, 1 << 20, bytes(bad), good)
    assert said == {"wrong_blocks": 2, "first_wrong": (1 << 20) + 4096}


def test_no_two_places_of_the_file_are_alike() -> None:
    seed = os.urandom(1 << 20)
    contents = [disk_probe._content(seed, at << 20) for at in range(20)]
    blocks = [each[offset : offset + 4096] for each in contents for offset in range(0, 1 << 20, 4096)]
    assert len(set(blocks)) == len(blocks)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "Traceback"])
def test_a_probe_that_says_nothing(text: str) -> None:
    with pytest.raises(SensorError, match="run it by hand"):
        disk.of_outcome("/x", Outcome(returncode=0, stdout=text, stderr=""))
