"""Diagnostics run for real: the lab's stand-ins for the tools on PATH, and a loop that asks as the agent's does."""

from __future__ import annotations

import json
import select
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nodewatch.lab.layout import file_of
from nodewatch.sensors.deep.tool import ToolSensor
from nodewatch.sensors.reading import Reading

TOOLS = Path(str(file_of("tools")))


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Writes the state file of the lab's tools, which are the only ones on PATH beside the system's; returns its path."""
    path = tmp_path / "tools.json"
    monkeypatch.setenv("NODEWATCH_LAB_TOOLS", str(path))
    monkeypatch.setenv("NODEWATCH_LAB_HARDWARE", str(tmp_path / "hardware"))
    monkeypatch.setenv("PATH", f"{TOOLS}:/usr/bin:/bin")

    def write(**faults: Any) -> Path:
        path.write_text(json.dumps({"seconds": 0.1, **faults}))
        return path

    write()
    return write


def ask(sensor: ToolSensor, seconds: float) -> Reading:
    """The reading, waited for as the agent's loop waits; fails when it does not come."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        reading = sensor.result(time.monotonic())
        if reading is not None:
            return reading
        due = sensor.due_at()
        assert due is not None
        select.select(sensor.filenos(), [], [], max(0.0, min(due - time.monotonic(), 1.0)))
    raise AssertionError("no reading came")


@pytest.fixture
def run() -> Callable[..., Reading]:
    """Runs a sensor from its start to its reading, which must come within `seconds`, and closes it."""

    def read(sensor: ToolSensor, seconds: float = 30.0) -> Reading:
        sensor.start(time.monotonic())
        try:
            return ask(sensor, seconds)
        finally:
            sensor.close()

    return read
