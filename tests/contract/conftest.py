"""One cluster in a file, with a fake scontrol and squeue on PATH and a fake pyslurm where children import from."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

_HERE = Path(__file__).parent


class ClusterFile:
    """The cluster as a test sets it up and looks at it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.write({"nodes": [], "jobs": [], "reservations": {}})

    def write(self, data: dict[str, Any]) -> None:
        self._path.write_text(json.dumps(data))

    def read(self) -> dict[str, Any]:
        data = json.loads(self._path.read_text())
        assert isinstance(data, dict)
        return data

    def set(self, **values: Any) -> None:
        self.write({**self.read(), **values})

    def requests(self) -> list[str]:
        log = self._path.with_suffix(".log")
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return lines


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ClusterFile:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("scontrol", "squeue"):
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -S -E {_HERE / "fake_commands.py"} {name} "$@"\n')
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setenv("PYTHONPATH", str(_HERE / "fake_pyslurm"))
    monkeypatch.setenv("FAKE_CLUSTER", str(tmp_path / "cluster.json"))
    return ClusterFile(tmp_path / "cluster.json")


@pytest.fixture
def a_node() -> Callable[..., dict[str, Any]]:
    def make(name: str, *states: str, **fields: Any) -> dict[str, Any]:
        node = {"address": f"10.0.0.{name[1:]}", "state": sorted(states) or ["IDLE"], "reason": None, "reason_at": 0}
        return {"name": name, **node, "partitions": ["train"], "started": 1700000000, **fields}

    return make


@pytest.fixture
def a_job() -> Callable[..., dict[str, Any]]:
    def make(job_id: int, state: str = "RUNNING", **fields: Any) -> dict[str, Any]:
        job = {"nodes": "n[1-2]", "partition": "train", "user": "ada", "uid": 1001, "name": "train.sh", "priority": 100}
        times = {"eligible": 1700000000, "start": 1700000010, "end": 0, "status": 0, "restarts": 0}
        lists = {"excluded": None, "required": None, "batch": True, "comment": None, "extra": None}
        array = {"array": 0, "task": None, "waiting": None}
        more = {"requeue": True, "expedited": False, "reason": "None", "description": None, "preempted": 0, "het": 0}
        rest = {"offset": None, "account": "physics", "stderr": "/home/ada/train.err"}
        return {"job_id": job_id, "state": state, **job, **times, **lists, **array, **more, **rest, **fields}

    return make
