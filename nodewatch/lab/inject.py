"""`lab inject`: faults on demand, each as the real thing shows itself."""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nodewatch.lab import hardware, machine, network
from nodewatch.lab.errors import LabError
from nodewatch.lab.layout import Layout
from nodewatch.lab.process import run

# The demo's batch script, as `lab up` puts it on /fsx.
PRETRAIN = "/fsx/train/sbatch/pretrain.sbatch"


@dataclass(frozen=True, slots=True, kw_only=True)
class Injected:
    """What was done, and when."""

    t: float
    fault: str
    node: str
    detail: str


def gpu_lost(layout: Layout, node: str, gpu: int) -> str:
    """The GPU falls off the bus: the driver's Xid 79, NVML that has lost it, and the death of a process that used it."""
    target = _running(layout, node)
    bus = hardware.bus_id(gpu)
    _write(
        layout,
        target,
        [
            f"gpu {gpu} lost 1",
            f"kmsg 4 NVRM: GPU at PCI:{bus}: {hardware.gpu_uuid(target.ident, gpu)}",
            f"kmsg 4 NVRM: Xid (PCI:{bus}:00.0): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.",
            f"kmsg 4 NVRM: GPU {bus}:00.0: GPU has fallen off the bus.",
        ],
    )
    victim = _kill_one_task(target)
    return f"GPU {gpu} at {bus}, " + (f"killed task process {victim}" if victim else "no job ran there")


def node_crash(layout: Layout, node: str, gpu: int) -> str:
    """The machine loses power: nothing in it runs, nothing answers at its address. EC2 still calls it running."""
    target = _running(layout, node)
    # The cable first, or its peers see connections closed in good order.
    network.pull_cable(target.ident)
    machine.kill(target)
    return f"{target.ident} at {target.address}"


def benign(layout: Layout, node: str, gpu: int) -> str:
    """A user's program makes the GPU raise Xid 13 and 31: its own fault, not the hardware's."""
    target = _running(layout, node)
    bus = hardware.bus_id(gpu)
    whom = "pid='4242', name=python"
    _write(
        layout,
        target,
        [
            f"kmsg 4 NVRM: Xid (PCI:{bus}:00.0): 13, {whom}, Graphics SM Warp Exception on (GPC 1, TPC 0, SM 0): "
            "Out Of Range Address",
            f"kmsg 4 NVRM: Xid (PCI:{bus}:00.0): 31, {whom}, Ch 00000008, intr 00000000. MMU Fault: ENGINE GRAPHICS "
            "GPCCLIENT_T1_0 faulted @ 0x7f3c_1e400000. Fault is of type FAULT_PDE ACCESS_TYPE_VIRT_READ",
        ],
    )
    return f"Xid 13 and 31 on GPU {gpu}"


def garbage(layout: Layout, node: str, gpu: int) -> str:
    """The kernel log carries records that are not text, or not records."""
    target = _running(layout, node)
    records = [
        b"4,9001,1,-;NVRM: Xid (PCI:\xff\xfe\x00\xc3\x28): 7\xf09, pid=\n",
        b"\xde\xad\xbe\xef without any header\n",
        b"4,notanumber,,;NVRM: Xid (PCI:0000:53:00): , \n",
    ]
    _write(layout, target, [f"kmsg-raw {record.hex()}" for record in records])
    return f"{len(records)} records"


def no_capacity(layout: Layout, node: str, gpu: int) -> str:
    """EC2 refuses every launch with InsufficientInstanceCapacity."""
    _require_cloud(layout)
    layout.no_capacity.touch()
    return "launches are refused until lab inject capacity-back"


def capacity_back(layout: Layout, node: str, gpu: int) -> str:
    """EC2 has capacity again."""
    _require_cloud(layout)
    layout.no_capacity.unlink(missing_ok=True)
    return "launches succeed again"


def user_bug(layout: Layout, node: str, gpu: int) -> str:
    """A job whose own program raises, on clean hardware."""
    head = _running(layout, "head")
    if run(machine.entering(head, ["test", "-e", PRETRAIN]), deadline_s=10, check=False).code != 0:
        raise LabError(f"the head has no {PRETRAIN} to submit: run the lab from a checkout that has train/")
    submit = ["sbatch", "--parsable", "--auto-resume", "--chdir=/fsx", "--export=ALL,EXTRA_ARGS=--fail-at=5", PRETRAIN]
    done = run(machine.entering(head, submit), deadline_s=20, check=False)
    if done.code != 0:
        raise LabError(f"the job that fails by itself could not be submitted: {done.err.strip()}")
    return f"job {done.out.strip()}"


# What can be injected, and whether it is done to one node.
FAULTS: dict[str, tuple[Callable[[Layout, str, int], str], bool]] = {
    "gpu-lost": (gpu_lost, True),
    "node-crash": (node_crash, True),
    "benign": (benign, True),
    "garbage": (garbage, True),
    "user-bug": (user_bug, False),
    "no-capacity": (no_capacity, False),
    "capacity-back": (capacity_back, False),
}


def inject(layout: Layout, fault: str, node: str, gpu: int) -> Injected:
    """Do it. `t` is when it began: what is measured starts before the first symptom."""
    act, wants_node = FAULTS[fault]
    if wants_node and not node:
        raise LabError(f"{fault} is done to a node: lab inject {fault} NODE")
    began = time.time()
    return Injected(t=began, fault=fault, node=node, detail=act(layout, node, gpu))


def _running(layout: Layout, node: str) -> machine.Machine:
    _require_cloud(layout)
    target = machine.find(layout, node)
    if machine.init_pid(target) is None:
        raise LabError(f"{node} ({target.ident}) is not running: a fault needs a machine that runs")
    return target


def _require_cloud(layout: Layout) -> None:
    if not layout.plan_file.exists():
        raise LabError("the lab is not up: run lab up first")


def _write(layout: Layout, target: machine.Machine, lines: list[str]) -> None:
    hardware.append(layout.machine(target.ident) / "instance" / hardware.FILE_NAME, lines)


def _kill_one_task(target: machine.Machine) -> int | None:
    """SIGKILL the deepest process of a Slurm task on the machine: the program itself, not its launcher."""
    tasks = [pid for pid in machine.members(machine.cgroup_of(target.ident)) if pid > 0 and _is_task(pid)]
    parents = {_parent(pid) for pid in tasks}
    leaves = [pid for pid in tasks if pid not in parents]
    if not leaves:
        return None
    victim = min(leaves)
    try:
        os.kill(victim, signal.SIGKILL)
    except ProcessLookupError:
        return None
    return victim


def _is_task(pid: int) -> bool:
    try:
        names = {entry.partition(b"=")[0] for entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")}
    except OSError:
        return False
    return {b"SLURM_JOB_ID", b"SLURM_PROCID"} <= names


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return 0
