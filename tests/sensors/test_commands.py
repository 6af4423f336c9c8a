"""Commands that are missing, fail, hang, or print what is none of a tool's: a sentence each, and in time."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from nodewatch.errors import SensorError
from nodewatch.sensors.commands import CommandSensor, Ran

from .tools import only, read, tool


def joined(outputs: Sequence[Ran], now: float) -> str:
    return "|".join(ran.must_have_run().stdout.strip() for ran in outputs)


def sensor_of(*commands: Sequence[str], deadline_s: float = 20.0, at_most: int = 4096) -> CommandSensor:
    return CommandSensor(
        "thing",
        str,
        commands=lambda _now: commands,
        parse=joined,
        absent=lambda: None,
        deadline_s=deadline_s,
        at_most=at_most,
    )


def test_one_after_the_other() -> None:
    sensor = sensor_of(("echo", "a"), ("echo", "b"))
    assert read(sensor).sample == "a|b"
    assert (sensor.due_at(), sensor.filenos(), sensor.result(0.0)) == (None, (), None)
    assert read(sensor).sample == "a|b"


@pytest.mark.parametrize(
    ("script", "mode", "says"),
    [
        ("exit 126", 0o755, "cannot be run (status 126)"),
        ("exit 127", 0o755, "cannot be run (status 127)"),
        ("exit 3", 0o755, "failed with status 3 and said nothing"),
        ("kill -9 $$", 0o755, "ended by signal 9"),
        ("head -c 100000 /dev/zero", 0o755, "printed more than 4 KiB"),
        ("echo fine", 0o644, "cannot be started"),
    ],
)
def test_what_proves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, mode: int, says: str
) -> None:
    tool(tmp_path / "bin", "asked", script, mode=mode)
    only(tmp_path / "bin", monkeypatch)
    reading = read(sensor_of(("asked", "-x")))
    assert reading.sample is None
    assert says in (reading.error or "")


def test_a_tool_that_is_missing() -> None:
    assert "no-such-tool-here cannot be started" in (read(sensor_of(("no-such-tool-here",))).error or "")


def test_no_utf8_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool(tmp_path / "bin", "asked", "printf 'a\\377b\\000c'")
    only(tmp_path / "bin", monkeypatch)
    assert read(sensor_of(("asked",))).sample == "a\ufffdb\x00c"


def test_one_that_hangs_and_ignores_sigterm_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pids = tmp_path / "pids"
    tool(tmp_path / "bin", "asked", f"trap '' TERM\necho $$ >> {pids}\nwhile :; do sleep 0.05; done")
    only(tmp_path / "bin", monkeypatch)
    sensor = sensor_of(("asked",), ("echo", "b"), deadline_s=1.0)
    for times in (1, 2):
        assert "did not answer within 1 s" in (read(sensor).error or "")
        assert len(pids.read_text().split()) == times
    sensor.close()
    gone = time.monotonic() + 10
    while any(Path(f"/proc/{pid}/cmdline").exists() and _runs(pid) for pid in pids.read_text().split()):
        assert time.monotonic() < gone
        time.sleep(0.02)


def _runs(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_one_that_closes_its_outputs_and_stays_is_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool(tmp_path / "bin", "asked", "echo told; exec >&- 2>&-; exec sleep 60")
    only(tmp_path / "bin", monkeypatch)
    assert "did not answer" in (read(sensor_of(("asked",), deadline_s=0.5)).error or "")


def test_a_clock_that_goes_back_ends_no_reading_wrongly() -> None:
    sensor = sensor_of(("sleep", "0.2"), ("echo", "b"))
    sensor.start(1000.0)
    assert sensor.result(10.0) is None
    end = time.monotonic() + 20
    while (reading := sensor.result(10.0)) is None and time.monotonic() < end:
        time.sleep(0.02)
    assert reading is not None
    assert reading.sample == "|b"


def test_what_a_parser_raises_is_a_sentence() -> None:
    def torn(outputs: Sequence[Ran], now: float) -> object:
        raise KeyError("name")

    def told(outputs: Sequence[Ran], now: float) -> object:
        raise SensorError("nothing is known")

    for parse, says in ((torn, "cannot be read (KeyError"), (told, "nothing is known")):
        sensor = CommandSensor(
            "thing", str, commands=lambda _: [("true",)], parse=parse, absent=lambda: None, deadline_s=20.0
        )
        assert says in (read(sensor).error or "")


def test_close_ends_what_runs() -> None:
    sensor = sensor_of(("sleep", "100"))
    sensor.start(time.monotonic())
    assert sensor._child is not None
    pid = sensor._child.pid
    sensor.close()
    assert sensor.due_at() is None
    end = time.monotonic() + 10
    while _runs(str(pid)) and time.monotonic() < end:
        time.sleep(0.02)
    assert not _runs(str(pid))
    assert os.getpid() != pid
