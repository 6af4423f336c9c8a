"""A machine in quarantine stops its slurmd once, and tries again where that failed."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from nodewatch.agent.retirement import Retirement


def counting(log: Path, status: int) -> tuple[str, ...]:
    return (sys.executable, "-c", f"open({str(log)!r}, 'a').write('x'); raise SystemExit({status})")


def until_ran(retirement: Retirement, log: Path, times: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and (not log.exists() or len(log.read_text()) < times):
        time.sleep(0.01)
    while time.monotonic() < deadline and retirement._child is not None and not retirement.is_done:
        time.sleep(0.01)


def test_slurmd_is_stopped_once_however_often_it_is_asked(tmp_path: Path) -> None:
    log = tmp_path / "log"
    retirement = Retirement(counting(log, 0))
    retirement.ask(0.0)
    retirement.ask(0.1)
    until_ran(retirement, log, 1)
    assert retirement.is_done
    retirement.ask(1000.0)
    assert log.read_text() == "x"


def test_a_command_that_failed_is_tried_again_later(tmp_path: Path) -> None:
    log = tmp_path / "log"
    retirement = Retirement(counting(log, 1))
    retirement.ask(0.0)
    until_ran(retirement, log, 1)
    assert not retirement.is_done
    retirement.ask(59.0)
    assert log.read_text() == "x"
    retirement.ask(61.0)
    until_ran(retirement, log, 2)
    assert log.read_text() == "xx"


def test_a_machine_without_systemctl_is_not_ended_by_it(tmp_path: Path) -> None:
    retirement = Retirement((str(tmp_path / "none"),))
    retirement.ask(0.0)
    assert not retirement.is_done
