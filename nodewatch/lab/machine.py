"""One machine: its directory, its overlay, its nspawn process, and how to reach into it or end it."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from nodewatch.lab import network
from nodewatch.lab.errors import LabError
from nodewatch.lab.layout import CGROUP, INSTANCE_DIR, MARK_VARIABLE, Layout, file_of
from nodewatch.lab.preflight import cgroup2_mount

GRACE_S = 6.0
# systemd's signals to its init: orderly power-off, and at once.
SIGRTMIN_POWEROFF = signal.SIGRTMIN + 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What the cloud wrote down about a machine when it booted it."""

    ident: str
    name: str
    address: str
    pid: int
    booted_at: float


def cgroup_of(ident: str) -> Path:
    root = cgroup2_mount()
    if root is None:
        raise LabError("the host's cgroup2 hierarchy went away: mount it again, then run lab down")
    return root / CGROUP / ident


def boot(
    layout: Layout, *, ident: str, name: str, address: str, lower: Sequence[Path], binds: Sequence[str]
) -> subprocess.Popen[bytes]:
    """Start a machine whose network is plugged in and whose directory is prepared; returns its nspawn process."""
    place = layout.machine(ident)
    for part in ("upper", "work", "root"):
        (place / part).mkdir(parents=True, exist_ok=True)
    (place / "upper").chmod(0o755)
    cgroup = cgroup_of(ident)
    # A cgroup that was ended with cgroup.kill is not used again: Linux kills what is cloned from an old one into a new
    # one below it, which is how systemd starts every service.
    remove_cgroup(cgroup)
    cgroup.mkdir(parents=True, exist_ok=True)
    argv = [
        "sh", str(file_of("files/launch-machine")), str(cgroup), ":".join(map(str, lower)), str(place),
        "--register=no", "--keep-unit", "--quiet", "--settings=no", f"--machine={name}", f"--hostname={name}",
        f"--network-namespace-path={network.NETNS_DIR / network.netns_of(ident)}",
        "--resolv-conf=off", "--timezone=off", "--link-journal=no", "--console=read-only",
        f"--bind={place / 'instance'}:{INSTANCE_DIR}", *binds, "--boot",
    ]  # fmt: skip
    with open(place / "console.log", "ab") as console:
        child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            cwd="/",
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", MARK_VARIABLE: str(layout.root)},
            start_new_session=True,
        )
    machine = Machine(ident=ident, name=name, address=address, pid=child.pid, booted_at=time.time())
    _write_whole(place / "machine.json", json.dumps(asdict(machine)))
    return child


def machines(layout: Layout) -> list[Machine]:
    """The machines that the cloud has booted and not removed, head first, then by address."""
    found = []
    for record in layout.machines.glob("*/machine.json"):
        try:
            found.append(Machine(**json.loads(record.read_text())))
        except (OSError, ValueError, TypeError):
            continue
    return sorted(found, key=lambda m: (m.ident.startswith("i-"), [int(part) for part in m.address.split(".")]))


def find(layout: Layout, wanted: str) -> Machine:
    """The machine called `wanted`: a node name (the newest that bears it) or an instance id."""
    have = machines(layout)
    chosen = [machine for machine in have if wanted in (machine.name, machine.ident)]
    if not chosen:
        names = ", ".join(machine.name for machine in have) or "none"
        raise LabError(f"the lab has no machine {wanted}: it has {names}")
    return max(chosen, key=lambda m: m.booted_at)


def init_pid(machine: Machine) -> int | None:
    """The host's process id of the machine's init, or None when it is not running."""
    for nspawn in _children(machine.pid):
        if _line(Path(f"/proc/{nspawn}/comm")) != "systemd-nspawn":
            continue
        for child in _children(nspawn):
            # The one that is process 1 of a namespace inside; nspawn has short-lived helpers beside it at start.
            numbers = _line(Path(f"/proc/{child}/status"), "NSpid:").split()
            if len(numbers) > 2 and numbers[-1] == "1":
                return child
    return None


def _children(pid: int) -> list[int]:
    return [int(word) for word in _line(Path(f"/proc/{pid}/task/{pid}/children")).split()]


def _line(path: Path, start: str = "") -> str:
    """The first line that begins so; empty when there is none or the process has gone."""
    with suppress(OSError):
        return next((line for line in path.read_text().splitlines() if line.startswith(start)), "")
    return ""


def entering(machine: Machine, argv: Sequence[str]) -> list[str]:
    """The argv that runs `argv` inside the machine."""
    pid = init_pid(machine)
    if pid is None:
        raise LabError(f"{machine.name} ({machine.ident}) is not running: lab status shows which machines are")
    return [
        "nsenter", "-t", str(pid), "-a", "--", "env", "-i",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8",
        f"TERM={os.environ.get('TERM', 'dumb')}", *argv,
    ]  # fmt: skip


def stop(machine: Machine, *, grace_s: float = GRACE_S) -> None:
    """Power the machine off; past `grace_s` end whatever is left of it."""
    pid = init_pid(machine)
    if pid is not None and grace_s > 0:
        _signal(pid, SIGRTMIN_POWEROFF)
        deadline = time.monotonic() + grace_s
        while time.monotonic() < deadline and alive(machine):
            time.sleep(0.05)
    kill(machine)


def kill(machine: Machine) -> None:
    """End every process of the machine at once, as losing power does."""
    kill_cgroup(cgroup_of(machine.ident))


def alive(machine: Machine) -> bool:
    return bool(members(cgroup_of(machine.ident)))


def remove(layout: Layout, ident: str) -> None:
    """Forget a machine that has ended: network, cgroup, directory."""
    network.unplug(ident)
    remove_cgroup(cgroup_of(ident))
    shutil.rmtree(layout.machine(ident), ignore_errors=True)


def members(cgroup: Path) -> list[int]:
    """The processes in a cgroup and below it."""
    found: list[int] = []
    # os.walk passes over a cgroup that goes between the listing and the reading; Path.rglob raises.
    for place, _, _ in os.walk(cgroup):
        with suppress(OSError):
            found.extend(int(word) for word in (Path(place) / "cgroup.procs").read_text().split())
    return found


def kill_cgroup(cgroup: Path, *, deadline_s: float = 5.0) -> None:
    """SIGKILL everything in a cgroup and wait until it is empty."""
    end = time.monotonic() + deadline_s
    while cgroup.exists():
        try:
            (cgroup / "cgroup.kill").write_text("1")
        except OSError:
            # Kernels before 5.14 have no cgroup.kill.
            for pid in members(cgroup):
                if pid > 0:
                    _signal(pid, signal.SIGKILL)
        if not members(cgroup) or time.monotonic() > end:
            return
        time.sleep(0.02)


def remove_cgroup(cgroup: Path) -> None:
    """Remove an empty cgroup, deepest first."""
    if not cgroup.exists():
        return
    for place, _, _ in os.walk(cgroup, topdown=False):
        _rmdir(Path(place))


def _rmdir(place: Path) -> None:
    # A dead process lingers in its cgroup until it is reaped: "busy" for a moment.
    for _ in range(50):
        try:
            place.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.02)
        else:
            return


def _signal(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _write_whole(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text)
    temporary.rename(path)
