"""Which programs have memory on a GPU, and whether a Slurm job owns them: asked by the child process that calls NVML.

Slurm itself is not asked. A job's programs are in a control group whose path names the job (`.../job_17/...`, in both
versions of control groups), or below a slurmstepd where Slurm uses none. A job is on the node for as long as one of its
slurmstepd processes is, which call themselves `slurmstepd: [17.batch]`.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Ask = Callable[..., Any]
_LISTS = (
    "nvmlDeviceGetComputeRunningProcesses",
    "nvmlDeviceGetGraphicsRunningProcesses",
    "nvmlDeviceGetMPSComputeRunningProcesses",
)
_VERSIONS = ("_v3", "_v2")
"""By version: the name without one raises something that is no NVMLError where driver and package are of different ages."""
_JOB = re.compile(r"/job_([0-9A-Za-z]{1,32})(?:/|$)", re.MULTILINE)
_STEPD = re.compile(rb"slurmstepd: \[([0-9]{1,12})")
_FIRST_NAMESPACE = 0xEFFFFFFC
"""The inode of the machine's own namespace of process ids (PROC_PID_INIT_INO of include/linux/proc_ns.h)."""
_MOST = 64
"""Programs described per GPU: a GPU serves a few, or some ten clients of an MPS server."""
_DEEPEST = 64


class Owners:
    """Tells to whom a process belongs. Remembers the slurmstepd that it found for a job, so that /proc is seldom searched."""

    def __init__(self, proc: Path = Path("/proc"), *, sees_all: bool | None = None) -> None:
        """`sees_all` says whether process ids of this namespace are NVML's; left out: found out."""
        self._proc = proc
        self._stepds: dict[str, int] = {}
        self._own = self._cgroup("self")
        self._searched_at: float | None = None
        if sees_all is None:
            try:
                # NVML speaks of process ids of the machine: in a container they are somebody else's, or nobody's.
                sees_all = os.stat("/proc/self/ns/pid").st_ino == _FIRST_NAMESPACE  # noqa: PTH116
            except OSError:
                sees_all = False
        self._sees_all = sees_all

    def describe(self, pid: int, now: float) -> dict[str, Any]:
        """What is known of the process: `owner` is job, ended_job, agent, other, gone, or unknown where it cannot be told."""
        if not self._sees_all:
            return {"pid": pid, "owner": "unknown"}
        place = self._proc / str(pid)
        try:
            stat = (place / "stat").read_bytes().decode("utf-8", "replace")
            before, _, after = stat.rpartition(")")
            started = int(after.split()[19])
            uid = place.stat().st_uid
            words = (place / "cmdline").read_bytes()[:4096].split(b"\0")
        except FileNotFoundError:
            return {"pid": pid, "owner": "gone"}
        except (OSError, ValueError, IndexError):
            return {"pid": pid, "owner": "unknown"}
        job, owner = self._owner(pid, now)
        return {
            "pid": pid,
            "owner": owner,
            "job": job,
            "name": _name(before.partition("(")[2], words[0].decode("utf-8", "replace")),
            "uid": uid,
            "started": started,
            "age_s": round(time.clock_gettime(time.CLOCK_BOOTTIME) - started / os.sysconf("SC_CLK_TCK"), 1),
        }

    def has_job(self, now: float) -> bool | None:
        """Whether any job is on this node now; None where that cannot be seen."""
        if not self._sees_all:
            return None
        if not any(self._is_stepd(pid, job) for job, pid in self._stepds.items()):
            self._search(now)
        return bool(self._stepds)

    def _owner(self, pid: int, now: float) -> tuple[str | None, str]:
        cgroup = self._cgroup(str(pid))
        found = _JOB.search(cgroup)
        if found is not None:
            job = found[1]
            # A release that names control groups by something else than the number: it is a job's, and nothing more is known.
            return job, "job" if not job.isdecimal() or self._is_here(job, now) else "ended_job"
        # In the root group are programs of everybody, where nobody divides them.
        if cgroup and cgroup == self._own and not cgroup.rstrip().endswith(":/"):
            return None, "agent"
        # Without control groups of Slurm's a job's programs are known by their ancestors alone.
        job = self._ancestor(pid)
        if job is not None:
            return job, "job"
        return None, "unknown" if not cgroup else "other"

    def _ancestor(self, pid: int) -> str | None:
        for _ in range(_DEEPEST):
            try:
                stat = (self._proc / str(pid) / "stat").read_bytes()
                job = self._job_of_stepd(pid)
                parent = int(stat.rpartition(b")")[2].split()[1])
            except (OSError, ValueError, IndexError):
                return None
            if job is not None:
                return job
            if parent <= 1:
                return None
            pid = parent
        return None

    def _is_here(self, job: str, now: float) -> bool:
        pid = self._stepds.get(job)
        if pid is None or not self._is_stepd(pid, job):
            self._search(now)
        return job in self._stepds

    def _search(self, now: float) -> None:
        """Look at every process, at most once a reading: some ten milliseconds on a large machine."""
        if self._searched_at == now:
            return
        self._searched_at = now
        self._stepds = {}
        with os.scandir(self._proc) as entries:
            for entry in entries:
                if entry.name.isdigit() and (job := self._job_of_stepd(int(entry.name))) is not None:
                    self._stepds[job] = int(entry.name)

    def _is_stepd(self, pid: int, job: str) -> bool:
        return self._job_of_stepd(pid) == job

    def _job_of_stepd(self, pid: int) -> str | None:
        try:
            with (self._proc / str(pid) / "cmdline").open("rb") as file:
                found = _STEPD.match(file.read(64))
        except OSError:
            return None
        return None if found is None else found[1].decode("ascii")

    def _cgroup(self, pid: str) -> str:
        try:
            return (self._proc / pid / "cgroup").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""


def _name(short: str, path: str) -> str:
    """The program's name. The kernel keeps 15 characters of it; the command line has it whole unless it was rewritten."""
    name = path.split(" ")[0].rstrip(":").rpartition("/")[2]
    return (name if len(short) >= 15 and name.startswith(short) else short)[:80]


def read(nvml: Any, ask: Ask, handle: Any, owners: Owners, now: float) -> dict[str, Any]:
    """The programs on one GPU and the memory in use; `processes` is None where the driver does not list them."""
    used: dict[int, int | None] = {}
    known = False
    for name in _LISTS:
        found = next((list_ for version in _VERSIONS if (list_ := ask(name + version, handle)) is not None), None)
        if found is None:
            continue
        known = True
        for process in found[:_MOST]:
            memory = getattr(process, "usedGpuMemory", None)
            used[int(process.pid)] = None if memory is None else int(memory) >> 20
    version = getattr(nvml, "nvmlMemory_v2", None)
    # The second version tells what the driver keeps for itself from what programs hold.
    memory = None if version is None else ask("nvmlDeviceGetMemoryInfo", handle, version)
    memory_mib = None if memory is None else int(memory.used) >> 20
    processes = [{**owners.describe(pid, now), "used_mib": used[pid]} for pid in sorted(used)] if known else None
    living = [process for process in processes or () if process["owner"] != "gone"]
    # Searched for only where the answer matters, since a node without a job is searched in vain each time.
    matters = processes is not None and not living and memory_mib
    return {
        "processes": processes,
        "memory_used_mib": memory_mib,
        "job_on_node": owners.has_job(now) if matters else None,
    }
