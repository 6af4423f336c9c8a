"""The host's sensors: on this machine, and on trees and tools that misbehave."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewatch.errors import SensorError
from nodewatch.model.host_samples import BootSample, HostSample
from nodewatch.sensors import procfs
from nodewatch.sensors.procfs import BootNote, NotHere, ProcessScan, ProcSensor
from nodewatch.sensors.systemd import UnitSensor, parse_units


def test_this_machine() -> None:
    host = procfs.read_host("")
    assert host.memory_bytes > host.available_bytes > 0
    assert host.cpus_online >= 1
    spaces = procfs.read_spaces().spaces
    assert spaces[0].path == "/"
    assert 0 <= spaces[0].free_bytes <= spaces[0].bytes
    processes = ProcessScan()()
    assert processes.processes >= 1
    assert procfs.read_uptime() > 0


def test_the_clock_is_the_hosts_in_a_container_and_tells_something_elsewhere() -> None:
    with pytest.raises(NotHere):
        procfs.read_clock(in_container=True)
    with contextlib.suppress(SensorError):
        assert 0 <= procfs.read_clock(in_container=False).max_error_s < 1e6


def test_what_proves_an_instance_type() -> None:
    def proved(configured: str, firmware: str, *, expect_host: bool = False, in_container: bool = False) -> str:
        return procfs.proved_type(configured, firmware, expect_host=expect_host, in_container=in_container)

    assert proved("p5.48xlarge", "Standard PC (Q35 + ICH9, 2009)") == ""
    assert proved("p5.48xlarge", "p5.48xlarge") == "p5.48xlarge"
    assert proved("", "p5.48xlarge") == "p5.48xlarge"
    assert proved("p5.48xlarge", "p5.48xlarge", in_container=True) == ""
    assert proved("p5.48xlarge", "", expect_host=True) == "p5.48xlarge"


def test_a_container_is_known_by_the_file_that_its_manager_leaves(tmp_path: Path) -> None:
    assert not procfs.is_container(tmp_path)
    (tmp_path / "run/systemd").mkdir(parents=True)
    (tmp_path / "run/systemd/container").write_text("systemd-nspawn")
    assert procfs.is_container(tmp_path)


@pytest.mark.parametrize(("ranges", "count"), [("0", 1), ("0-95", 96), ("0-3,8,10-11", 7)])
def test_lists_of_processors(ranges: str, count: int) -> None:
    assert procfs.count_of(ranges) == count


def stat(pid: int, name: str, state: str, *, ticks: int = 5, flags: int = 0x400000) -> str:
    return f"{pid} ({name}) {state} 1 1 1 0 -1 {flags} 0 0 0 0 {ticks} 3 0 0 20 0 1 0 777 0 0\n"


def write(proc: Path, pid: int, text: str) -> None:
    (proc / str(pid)).mkdir(exist_ok=True)
    (proc / str(pid) / "stat").write_text(text)


def test_waiting_is_counted_from_when_it_was_first_seen(tmp_path: Path) -> None:
    now = 100.0
    scan = ProcessScan(tmp_path, lambda: now)
    write(tmp_path, 7, stat(7, "a) D (b", "D"))
    write(tmp_path, 8, stat(8, "busy", "D"))
    write(tmp_path, 9, stat(9, "kworker/3:1", "D", flags=procfs._KERNEL_THREAD))
    write(tmp_path, 10, stat(10, "dead", "Z"))
    write(tmp_path, 11, "garbage")
    (tmp_path / "12").mkdir()
    (tmp_path / "meminfo").write_text("")
    first = scan()
    assert (first.processes, first.zombies, {p.seconds for p in first.blocked}) == (3, 1, {0.0})
    now = 160.0
    write(tmp_path, 8, stat(8, "busy", "D", ticks=9))
    second = {process.name: process.seconds for process in scan().blocked}
    assert second == {"a) D (b": 60.0, "busy": 0.0}
    now = 220.0
    write(tmp_path, 7, stat(7, "a) D (b", "S"))
    scan()
    now = 280.0
    write(tmp_path, 7, stat(7, "a) D (b", "D"))
    assert {p.name: p.seconds for p in scan().blocked}["a) D (b"] == 0.0


@given(st.binary(max_size=200))
def test_no_stat_raises(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    proc = tmp_path_factory.mktemp("p")
    (proc / "7").mkdir()
    (proc / "7" / "stat").write_bytes(data)
    sensor = ProcSensor("processes", object, ProcessScan(proc))
    sensor.start(0.0)
    assert sensor.result(0.0) is not None


def test_space_is_counted_once_and_network_file_systems_are_left_alone(tmp_path: Path) -> None:
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text("1 0 8:1 / / rw - ext4 /dev/x rw\n2 1 0:5 / /far rw - lustre 10.0.0.1@tcp:/fsx rw\n")
    inside = tmp_path / "inside"
    inside.mkdir()
    found = procfs.read_spaces((str(tmp_path), str(inside), "/far/away", "/does/not/exist"), mountinfo=mountinfo)
    assert [space.path for space in found.spaces] == [str(tmp_path)]


def test_a_sensor_answers_at_once_and_once() -> None:
    sample = HostSample(memory_bytes=1, available_bytes=1, cpus_online=1)
    sensor = ProcSensor("host", HostSample, lambda: sample)
    assert sensor.due_at() is None
    sensor.start(0.0)
    assert (sensor.due_at(), sensor.filenos()) == (0.0, ())
    reading = sensor.result(0.0)
    assert reading is not None
    assert reading.sample is sample
    assert sensor.result(0.0) is None


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (SensorError("why"), "error"),
        (OSError(5, "Input/output error"), "error"),
        (ValueError("no number"), "error"),
        (NotHere("not here"), "not_applicable"),
    ],
)
def test_what_a_reading_raises_is_one_sentence(error: Exception, kind: str) -> None:
    def read() -> object:
        raise error

    sensor = ProcSensor("host", HostSample, read)
    sensor.start(0.0)
    reading = sensor.result(0.0)
    assert reading is not None
    assert getattr(reading, kind)
    assert reading.sample is None


def boot(path: Path, boot_id: str, *, now: float = 1000.0, is_clean: bool = False) -> BootSample | None:
    note = BootNote(path, boot_id, now=now)
    try:
        return note.read()
    except NotHere:
        return None
    finally:
        if is_clean:
            note.end()


def test_how_the_boot_before_ended(tmp_path: Path) -> None:
    path = tmp_path / "state" / "boot.json"
    assert boot(path, "b1", is_clean=True) is None
    after_clean = boot(path, "b2")
    assert after_clean is not None
    assert (after_clean.previous_boot_id, after_clean.previous_was_clean) == ("b1", True)
    after_reset = boot(path, "b3", now=2000.0)
    assert after_reset is not None
    assert (after_reset.previous_was_clean, after_reset.unclean_in_a_day) == (False, 1)
    # The agent alone was started again: the answer stays.
    assert boot(path, "b3", now=2001.0, is_clean=True) == after_reset
    boot(path, "b4", now=2002.0)
    again = boot(path, "b5", now=2003.0)
    assert again is not None
    assert again.unclean_in_a_day == 2
    much_later = boot(path, "b6", now=1e6)
    assert much_later is not None
    assert much_later.unclean_in_a_day == 1


@pytest.mark.parametrize("text", ["", "[]", "{", '{"boot_id": 7, "unclean": 3}', '{"unclean": ["x", null]}', "\0"])
def test_a_note_that_is_garbage_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "boot.json"
    path.write_text(text)
    assert boot(path, "b1") is None
    assert json.loads(path.read_text())["boot_id"] == "b1"


def test_a_note_that_cannot_be_written_harms_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert boot(tmp_path / "file" / "boot.json", "b1") is None


SHOW = """\
Id=munge.service
LoadState=loaded
ActiveState=active
SubState=running
UnitFileState=enabled
Result=success
NRestarts=0

Id=slurmd.service
LoadState=loaded
ActiveState=failed
SubState=failed
UnitFileState=enabled
Result=exit-code
NRestarts=3

Id=nvidia-dcgm.service
LoadState=not-found
ActiveState=inactive
SubState=dead
UnitFileState=
Result=success
"""


def test_units_that_are_installed() -> None:
    units = parse_units(SHOW)
    assert [(unit.name, unit.active, unit.file, unit.restarts) for unit in units] == [
        ("munge", "active", "enabled", 0),
        ("slurmd", "failed", "enabled", 3),
    ]


@given(st.text())
def test_no_text_raises(text: str) -> None:
    parse_units(text)
    parse_units("Id=" + text)


def machine(tmp_path: Path) -> Path:
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/uptime").write_text("4711.0 9000.0\n")
    return tmp_path


def ask(sensor: UnitSensor, seconds: float = 5.0) -> object:
    end = time.monotonic() + seconds
    sensor.start(time.monotonic())
    while time.monotonic() < end:
        reading = sensor.result(time.monotonic())
        if reading is not None:
            return reading.sample or reading.error or reading.not_applicable
        time.sleep(0.01)
    raise AssertionError("no answer")


def test_systemctl_is_asked_in_a_child(tmp_path: Path) -> None:
    show = tmp_path / "show"
    show.write_text(SHOW)
    sensor = UnitSensor(deadline_s=5.0, argv=("sh", "-c", f"cat {show}"), root=machine(tmp_path))
    sample = ask(sensor)
    assert getattr(sample, "uptime_s", None) == 4711.0
    assert [unit.name for unit in getattr(sample, "units", ())] == ["munge", "slurmd"]
    assert ask(sensor) == sample
    sensor.close()


def test_systemctl_that_is_missing_fails_or_hangs(tmp_path: Path) -> None:
    root = machine(tmp_path)
    missing = UnitSensor(deadline_s=5.0, argv=("/does/not/exist",), root=root)
    assert "cannot be started (No such file or directory)" in str(ask(missing))
    failing = UnitSensor(deadline_s=5.0, argv=("sh", "-c", "echo Access denied >&2; exit 4"), root=root)
    assert str(ask(failing)) == "systemctl failed with status 4: Access denied"
    hanging = UnitSensor(deadline_s=0.1, argv=("sh", "-c", "trap '' TERM; sleep 60"), root=root)
    assert "has not answered for 0.1 s" in str(ask(hanging))
    # The second question starts no second child.
    child = hanging._child
    assert "has not answered" in str(ask(hanging))
    assert child is not None
    assert hanging._child is child
    hanging.close()
    end = time.monotonic() + 5.0
    while is_alive(child.pid) and time.monotonic() < end:
        time.sleep(0.01)
    assert not is_alive(child.pid)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_machine_without_systemd(tmp_path: Path) -> None:
    assert ask(UnitSensor(deadline_s=1.0, root=tmp_path)) == "systemd does not run this machine"
