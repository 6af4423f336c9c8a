"""Local disks: a file is written, synced and read back in each configured directory, one after the other, by disk_probe.py."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nodewatch.errors import SensorError
from nodewatch.model.stress_samples import DiskProbe, DiskSample
from nodewatch.sensors.deep import disk_probe
from nodewatch.sensors.deep.tool import Command, Outcome, Procedure, Step
from nodewatch.sensors.reading import Reading

READS = DiskSample


def procedure(directories: Sequence[str], *, size: int) -> Procedure:
    """Probe each directory with a file of `size` bytes."""
    script = str(Path(disk_probe.__file__).resolve())
    disks = []
    for directory in directories:
        (ended,) = yield Step(commands=(Command(argv=(sys.executable, "-I", "-S", script, directory, str(size))),))
        disks.append(of_outcome(directory, ended))
    return Reading(sample=DiskSample(disks=tuple(disks)))


def of_outcome(directory: str, ended: Outcome) -> DiskProbe:
    """What the probe said. Raises SensorError when it said nothing."""
    try:
        said = json.loads(ended.stdout)
    except (ValueError, RecursionError):
        said = None
    if ended.returncode != 0 or not isinstance(said, dict):
        raise SensorError(
            f"the probe of {directory} ended with status {ended.returncode} ({ended.last_line}): run it by hand"
        )
    return DiskProbe(
        path=directory,
        size=_number(said, "size") or 0,
        write_mb_per_s=_speed(said, "write_mb_per_s"),
        read_mb_per_s=_speed(said, "read_mb_per_s"),
        wrong_blocks=_number(said, "wrong_blocks") or 0,
        first_wrong=_number(said, "first_wrong"),
        is_direct=said.get("is_direct") is True,
        failed=str(said["failed"]) if said.get("failed") else None,
        error=str(said.get("error", "")),
        said=str(said.get("said", ""))[:200],
    )


def _number(said: Mapping[str, Any], key: str) -> int | None:
    value = said.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _speed(said: Mapping[str, Any], key: str) -> float | None:
    value = said.get(key)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
