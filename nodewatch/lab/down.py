"""`lab down`: end everything that a lab started, also one that was killed half-way, and say what could not be."""

import os
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from nodewatch.lab import machine, network, preflight
from nodewatch.lab.layout import CGROUP, MARK_VARIABLE, Layout

GRACE_S = 5.0
LAST_DEADLINE_S = 5.0


def take_down(layout: Layout) -> list[str]:
    """Remove the lab; returns what is still there, a line each (none when all went)."""
    preflight.require_root()
    # The cloud first: it would boot machines anew while they are being stopped.
    for pid in marked_processes(layout, comm_prefix="python"):
        _kill(pid)
    found = machine.machines(layout)
    if found:
        with ThreadPoolExecutor(max_workers=len(found)) as pool:
            list(pool.map(lambda each: machine.stop(each, grace_s=GRACE_S), found))
    # What no record speaks of: an `up` or a cloud that was killed between starting a machine and writing it down.
    root = preflight.cgroup2_mount()
    if root is not None:
        machine.kill_cgroup(root / CGROUP)
    deadline = time.monotonic() + LAST_DEADLINE_S
    while (left := _strays(layout)) and time.monotonic() < deadline:
        for pid in left:
            _kill(pid)
        time.sleep(0.05)
    network.remove_all()
    if root is not None:
        machine.remove_cgroup(root / CGROUP)
    shutil.rmtree(layout.run, ignore_errors=True)
    return remains(layout)


def remains(layout: Layout) -> list[str]:
    """What a lab left on this host."""
    left = [f"process {pid} ({_comm(pid)})" for pid in _strays(layout)]
    left += [f"network namespace {name}" for name in network.lab_namespaces()]
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        place = line.split()[4]
        if place.startswith(str(layout.root) + "/"):
            left.append(f"mount {place}")
    root = preflight.cgroup2_mount()
    if root is not None and (root / CGROUP).exists():
        left.append(f"cgroup {root / CGROUP}")
    if layout.run.exists():
        left.append(f"directory {layout.run}")
    return left


def marked_processes(layout: Layout, *, comm_prefix: str = "") -> list[int]:
    """Processes started by the lab of this state directory, told by the mark in their environment."""
    mark = f"{MARK_VARIABLE}={layout.root}".encode()
    found = []
    for pid in _pids():
        try:
            environ = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            continue
        if mark in environ.split(b"\0") and _comm(pid).startswith(comm_prefix):
            found.append(pid)
    return found


def _strays(layout: Layout) -> list[int]:
    """Processes of the lab: by their mark, or because they live in one of its networks."""
    networks = set()
    for name in network.lab_namespaces():
        try:
            networks.add((network.NETNS_DIR / name).stat().st_ino)
        except OSError:
            continue
    found = set(marked_processes(layout))
    for pid in _pids():
        try:
            if Path(f"/proc/{pid}/ns/net").stat().st_ino in networks:
                found.add(pid)
        except OSError:
            continue
    return sorted(pid for pid in found if not _is_zombie(pid))


def _pids() -> list[int]:
    return [
        int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and entry.name != str(os.getpid())
    ]


def _comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (OSError, IndexError):
        return True


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
