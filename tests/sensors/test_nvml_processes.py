"""Whose the programs on a GPU are: real processes, and trees like /proc."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nodewatch.model.gpu_samples import Gpu
from nodewatch.sensors import nvml_processes
from nodewatch.sensors.nvml import parse_answer
from nodewatch.sensors.nvml_processes import Owners

SLICE = "0::/system.slice/slurmstepd.scope/job_17/step_0/user/task_0\n"
OLD = "9:freezer:/slurm_n1/uid_1000/job_17/step_0/task_0\n1:name=systemd:/system.slice/slurmd.service\n"


def put(proc: Path, pid: int, *, name: str, cmdline: str, cgroup: str, parent: int = 1) -> None:
    place = proc / str(pid)
    place.mkdir(parents=True)
    place.joinpath("stat").write_text(f"{pid} ({name}) S {parent} " + "0 " * 17 + "4242 0 0\n")
    place.joinpath("cmdline").write_bytes(cmdline.replace(" ", "\0").encode() + b"\0")
    place.joinpath("cgroup").write_text(cgroup)


def stepd(proc: Path, pid: int, job: int) -> None:
    put(proc, pid, name="slurmstepd", cmdline="", cgroup="0::/system.slice/slurmstepd.scope\n")
    (proc / str(pid) / "cmdline").write_bytes(f"slurmstepd: [{job}.0]".encode() + b"\0")


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "self").mkdir()
    (tmp_path / "self/cgroup").write_text("0::/system.slice/nodewatch-agent.service\n")
    return tmp_path


@pytest.mark.parametrize("cgroup", [SLICE, OLD])
def test_a_job_is_here_as_long_as_its_stepd_is(proc: Path, cgroup: str) -> None:
    put(proc, 50, name="python3", cmdline="python3 train.py", cgroup=cgroup)
    stepd(proc, 40, 17)
    owners = Owners(proc, sees_all=True)
    told = owners.describe(50, 0.0)
    assert (told["owner"], told["job"], told["name"], told["started"]) == ("job", "17", "python3", 4242)
    assert told["uid"] == os.getuid()
    assert owners.has_job(0.0) is True
    (proc / "40/cmdline").unlink()
    assert owners.describe(50, 30.0)["owner"] == "ended_job"
    assert owners.has_job(30.0) is False
    # Another job's stepd under the number of the old one proves nothing for it.
    stepd(proc, 41, 18)
    assert owners.describe(50, 60.0)["owner"] == "ended_job"
    assert owners.has_job(60.0) is True


def test_others(proc: Path) -> None:
    put(proc, 50, name="python3", cmdline="python3", cgroup="0::/user.slice/session-3.scope\n")
    put(proc, 51, name="all_reduce_perf", cmdline="x", cgroup="0::/system.slice/nodewatch-agent.service\n")
    put(proc, 52, name="nvidia-cuda-mps", cmdline="/usr/bin/nvidia-cuda-mps-server -x", cgroup="0::/x\n")
    put(proc, 53, name="python3", cmdline="python3", cgroup="0::/slurmstepd.scope/job_s7K2/step_0\n")
    put(proc, 54, name="python3", cmdline="python3", cgroup="")
    owners = Owners(proc, sees_all=True)
    assert owners.describe(50, 0.0)["owner"] == "other"
    assert owners.describe(51, 0.0)["owner"] == "agent"
    assert owners.describe(52, 0.0)["name"] == "nvidia-cuda-mps-server"
    assert owners.describe(53, 0.0)["owner"] == "job"
    assert owners.describe(54, 0.0)["owner"] == "unknown"
    assert owners.describe(99, 0.0) == {"pid": 99, "owner": "gone"}


def test_programs_of_the_root_group_are_not_taken_for_the_agents(tmp_path: Path) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "self/cgroup").write_text("0::/\n")
    put(tmp_path, 50, name="python3", cmdline="python3", cgroup="0::/\n")
    assert Owners(tmp_path, sees_all=True).describe(50, 0.0)["owner"] == "other"


def test_a_stat_that_is_no_stat_is_unknown(proc: Path) -> None:
    put(proc, 50, name="python3", cmdline="python3", cgroup=SLICE)
    (proc / "50/stat").write_bytes(b"\xff\xfe torn")
    assert Owners(proc, sees_all=True).describe(50, 0.0)["owner"] == "unknown"


def test_in_a_container_nothing_is_said() -> None:
    owners = Owners(sees_all=False)
    assert owners.describe(os.getpid(), 0.0) == {"pid": os.getpid(), "owner": "unknown"}
    assert owners.has_job(0.0) is None


@pytest.fixture
def step() -> Iterator[tuple[int, int]]:
    """A process that calls itself slurmstepd, and its child: their pids."""
    code = (
        "import subprocess, sys; child = subprocess.Popen(['sleep', '60']);"
        "print(child.pid, flush=True); sys.stdin.read(); child.kill(); child.wait()"
    )
    with subprocess.Popen(
        ["slurmstepd: [90017.batch]", "-c", code],
        executable=sys.executable,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        yield process.pid, int(process.stdout.readline())
        process.communicate("", timeout=20)


def test_without_control_groups_ancestors_tell(step: tuple[int, int]) -> None:
    pid, child = step
    owners = Owners(sees_all=True)
    told = owners.describe(child, 0.0)
    assert (told["owner"], told["job"]) == ("job", "90017")
    assert 0 <= told["age_s"] < 300
    assert owners.describe(pid, 0.0)["owner"] == "job"


def answers(**values: Any) -> Any:
    return lambda name, *_: values.get(name)


def read_as_gpu(owners: Owners, nvml: Any, **values: Any) -> Gpu:
    told = nvml_processes.read(nvml, answers(**values), 0, owners, 0.0)
    item = {"index": 0, "uuid": "GPU-a", "pci_bus_id": "b", "is_lost": False, **told}
    return parse_answer(json.dumps({"driver": "1", "gpus": [item], "unreadable": []}), expected=1).gpus[0]


def test_a_gpu_with_programs(proc: Path) -> None:
    put(proc, 50, name="python3", cmdline="python3", cgroup=SLICE)
    seen = read_as_gpu(
        Owners(proc, sees_all=True),
        SimpleNamespace(nvmlMemory_v2=2),
        nvmlDeviceGetComputeRunningProcesses_v3=[SimpleNamespace(pid=50, usedGpuMemory=3 << 30)],
        nvmlDeviceGetGraphicsRunningProcesses_v2=[SimpleNamespace(pid=60, usedGpuMemory=None)],
        nvmlDeviceGetMemoryInfo=SimpleNamespace(used=5 << 30),
    )
    assert seen.processes is not None
    assert [(p.pid, p.owner, p.used_mib) for p in seen.processes] == [(50, "ended_job", 3072), (60, "gone", None)]
    assert (seen.memory_used_mib, seen.job_on_node) == (5120, None)


def test_memory_without_a_program_asks_for_jobs(proc: Path) -> None:
    owners = Owners(proc, sees_all=True)
    values: dict[str, Any] = {
        "nvmlDeviceGetComputeRunningProcesses_v3": [],
        "nvmlDeviceGetMemoryInfo": SimpleNamespace(used=5 << 30),
    }
    seen = read_as_gpu(owners, SimpleNamespace(nvmlMemory_v2=2), **values)
    assert (seen.processes, seen.job_on_node) == ((), False)


def test_a_driver_that_lists_nothing(proc: Path) -> None:
    seen = read_as_gpu(Owners(proc, sees_all=True), SimpleNamespace())
    assert (seen.processes, seen.memory_used_mib, seen.job_on_node) == (None, None, None)
