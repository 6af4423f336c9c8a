"""Tools that do as a test says, on a PATH of their own, and a sensor that is read to its end."""

from __future__ import annotations

import os
import select
import time
from pathlib import Path

import pytest

from nodewatch.sensors.reading import PolledSensor, Reading


def tool(place: Path, name: str, script: str, *, mode: int = 0o755) -> Path:
    """A shell script called `name` in `place`."""
    place.mkdir(exist_ok=True)
    path = place / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(mode)
    return path


def only(place: Path, patch: pytest.MonkeyPatch) -> None:
    """Find tools in `place` first, and those of the system behind."""
    patch.setenv("PATH", f"{place}{os.pathsep}/usr/bin{os.pathsep}/bin")


def read(sensor: PolledSensor, seconds: float = 30.0) -> Reading:
    """One reading, waited for as the agent's loop does."""
    sensor.start(time.monotonic())
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        reading = sensor.result(time.monotonic())
        if reading is not None:
            return reading
        due = sensor.due_at()
        assert due is not None
        select.select(list(sensor.filenos()), [], [], max(0.0, min(due, end) - time.monotonic()) + 0.001)
    raise AssertionError("no reading")
