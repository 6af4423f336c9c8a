"""`lab inject`: faults on demand, each as the real thing shows itself."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from nodewatch.lab import hardware, machine, network
from nodewatch.lab.errors import LabError
from nodewatch.lab.layout import MARK_VARIABLE, Layout
from nodewatch.lab.plan import load
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


def gpu_lost(layout: Layout, target: machine.Machine, gpu: int) -> str:
    """The GPU falls off the bus: the driver's Xid 79, NVML that lost it, and the death of a process that used it."""
    bus = hardware.bus_id(gpu)
    _write(
        layout,
        target,
        [
            f"gpu {gpu} lost 1",
            f"kmsg 4 NVRM: GPU at PCI:{bus}: {hardware.gpu_uuid(target.ident, gpu)}",
            f"kmsg 4 NVRM: Xid (PCI:{bus}): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.",
            f"kmsg 4 NVRM: GPU {bus}.0: GPU has fallen off the bus.",
        ],
    )
    victim = _kill_one_task(target)
    return f"GPU {gpu} at {bus}, " + (f"killed task process {victim}" if victim else "no job ran there")


def node_crash(target: machine.Machine) -> str:
    """The machine loses power: nothing in it runs, nothing answers at its address. EC2 still calls it running."""
    # The cable first, or its peers see connections closed in good order.
    network.pull_cable(target.ident)
    machine.kill(target)
    return f"{target.ident} at {target.address}"


def benign(layout: Layout, target: machine.Machine, gpu: int) -> str:
    """A user's program makes the GPU raise Xid 13 and 31: its own fault, not the hardware's."""
    bus = hardware.bus_id(gpu)
    whom = "pid='4242', name=python"
    access = "Graphics SM Warp Exception on (GPC 1, TPC 0, SM 0): Out Of Range Address"
    fault = "Ch 00000008, intr 00000000. MMU Fault: ENGINE GRAPHICS GPCCLIENT_T1_0 faulted @ 0x7f3c_1e400000."
    lines = [
        f"kmsg 4 NVRM: Xid (PCI:{bus}): 13, {whom}, {access}",
        f"kmsg 4 NVRM: Xid (PCI:{bus}): 31, {whom}, {fault} Fault is of type FAULT_PDE ACCESS_TYPE_VIRT_READ",
    ]
    _write(layout, target, lines)
    return f"Xid 13 and 31 on GPU {gpu}"


def garbage(layout: Layout, target: machine.Machine) -> str:
    """The kernel log carries records that are not text, or not records."""
    records = [
        b"4,9001,1,-;NVRM: Xid (PCI:\xff\xfe\x00\xc3\x28): 7\xf09, pid=\n",
        b"\xde\xad\xbe\xef without any header\n",
        b"4,notanumber,,;NVRM: Xid (PCI:0000:53:00): , \n",
    ]
    _write(layout, target, [f"kmsg-raw {record.hex()}" for record in records])
    return f"{len(records)} records"


def dcgm_fail(layout: Layout, target: machine.Machine, gpu: int) -> str:
    """A GPU that fails DCGM's memory test, and nothing else shows it: only deep checks find it."""
    _tools(layout, target, {"dcgm": {"fail": {"gpu": gpu, "test": "memory"}}})
    return f"GPU {gpu} fails the memory test of dcgmi diag"


def remap_pending(layout: Layout, target: machine.Machine, gpu: int) -> str:
    """A GPU has to be reset before it takes a bad row of its memory out of use."""
    bus = hardware.bus_id(gpu)
    _write(
        layout,
        target,
        [f"gpu {gpu} remap_pending 1", f"kmsg 4 NVRM: Xid (PCI:{bus}): 63, Row Remapper: New row marked for remapping"],
    )
    return f"GPU {gpu} at {bus} wants a reset"


def nccl_slow(layout: Layout, target: machine.Machine) -> str:
    """All GPUs together are slower than their links allow: only deep checks find it."""
    _tools(layout, target, {"nccl": {"busbw_gbps": 180.0}})
    return "all_reduce_perf reaches 180 GB/s"


def tools_slow(layout: Layout, target: machine.Machine) -> str:
    """Every diagnostic takes a minute, as real ones do: time enough for a job to come in between."""
    _tools(layout, target, {"seconds": 60})
    return "each diagnostic takes 60 s"


def no_capacity(layout: Layout) -> str:
    """EC2 refuses every launch with InsufficientInstanceCapacity."""
    layout.no_capacity.touch()
    return "launches are refused until lab inject capacity-back"


def capacity_back(layout: Layout) -> str:
    """EC2 has capacity again."""
    layout.no_capacity.unlink(missing_ok=True)
    return "launches succeed again"


def fsx_hang(layout: Layout, targets: list[machine.Machine]) -> str:
    """/fsx answers nobody on these machines any more, as while a file server fails over. Jobs that have it open go on."""
    for target in targets:
        if _hanging(layout, target) is not None:
            raise LabError(f"/fsx hangs on {target.name} already: lab inject fsx-well ends it")
        child = subprocess.Popen(
            [sys.executable, "-m", "nodewatch.lab.hang", str(machine.init_pid(target)), "/fsx"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | {MARK_VARIABLE: str(layout.root)},
            start_new_session=True,
            text=True,
        )
        assert child.stdout is not None
        if child.stdout.readline() != "hangs\n":
            raise LabError(f"/fsx cannot be made to hang on {target.name}: {child.communicate()[1].strip()}")
        # It goes with its machine, also with one that dies.
        (machine.cgroup_of(target.ident) / "cgroup.procs").write_text(str(child.pid))
        _hang_note(layout, target).write_text(f"{child.pid}\n")
    return f"/fsx hangs on {', '.join(target.name for target in targets)} until lab inject fsx-well"


def fsx_well(layout: Layout, targets: list[machine.Machine]) -> str:
    """/fsx answers again."""
    for target in targets:
        pid = _hanging(layout, target)
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        _hang_note(layout, target).unlink(missing_ok=True)
    return "/fsx answers"


def _hang_note(layout: Layout, target: machine.Machine) -> Path:
    """Where the process that lets /fsx hang is written down."""
    return layout.machine(target.ident) / "fsx-hang.pid"


def _hanging(layout: Layout, target: machine.Machine) -> int | None:
    """The process that lets /fsx hang on the machine, None when it does not hang."""
    with suppress(OSError, ValueError):
        pid = int(_hang_note(layout, target).read_text())
        # A machine that was booted anew hangs no longer, and the number may be another process's by now.
        if pid in machine.members(machine.cgroup_of(target.ident)):
            return pid
    return None


def user_bug(layout: Layout) -> str:
    """A job whose own program raises, on clean hardware."""
    head = _running(layout, "head")
    if run(machine.entering(head, ["test", "-e", PRETRAIN]), deadline_s=10, check=False).code != 0:
        raise LabError(f"the head has no {PRETRAIN} to submit: run the lab from a checkout that has train/")
    submit = [
        "sbatch",
        "--parsable",
        "--auto-resume",
        "--chdir=/fsx",
        "--job-name=user-bug",
        "--export=ALL,EXTRA_ARGS=--fail-at=5",
        PRETRAIN,
    ]
    done = run(machine.entering(head, submit), deadline_s=20, check=False)
    if done.code != 0:
        raise LabError(f"the job that fails by itself could not be submitted: {done.err.strip()}")
    return f"job {done.out.strip()}"


NODE_FAULTS = (
    "gpu-lost",
    "node-crash",
    "benign",
    "garbage",
    "remap-pending",
    "dcgm-fail",
    "nccl-slow",
    "tools-slow",
    "tools-well",
)
CLUSTER_FAULTS = ("no-capacity", "capacity-back", "fsx-hang", "fsx-well", "user-bug")


def inject(layout: Layout, fault: str, node: str, gpu: int) -> Injected:
    """Do it. `t` is when it began: what is measured starts before the first symptom."""
    load(layout)
    if fault in NODE_FAULTS and not node:
        raise LabError(f"{fault} is done to a node: lab inject {fault} NODE")
    began = time.time()
    match fault:
        case "gpu-lost":
            detail = gpu_lost(layout, _running(layout, node), gpu)
        case "node-crash":
            detail = node_crash(_running(layout, node))
        case "benign":
            detail = benign(layout, _running(layout, node), gpu)
        case "garbage":
            detail = garbage(layout, _running(layout, node))
        case "remap-pending":
            detail = remap_pending(layout, _running(layout, node), gpu)
        case "dcgm-fail":
            detail = dcgm_fail(layout, _running(layout, node), gpu)
        case "nccl-slow":
            detail = nccl_slow(layout, _running(layout, node))
        case "tools-slow":
            detail = tools_slow(layout, _running(layout, node))
        case "tools-well":
            _tools(layout, _running(layout, node), {})
            detail = "the diagnostics find nothing"
        case "fsx-hang":
            detail = fsx_hang(layout, _nodes(layout, node))
        case "fsx-well":
            detail = fsx_well(layout, _nodes(layout, node))
        case "no-capacity":
            detail = no_capacity(layout)
        case "capacity-back":
            detail = capacity_back(layout)
        case "user-bug":
            detail = user_bug(layout)
        case _:
            raise LabError(f"there is no fault {fault}: choose from {', '.join(NODE_FAULTS + CLUSTER_FAULTS)}")
    return Injected(t=began, fault=fault, node=node, detail=detail)


def _running(layout: Layout, node: str) -> machine.Machine:
    target = machine.find(layout, node)
    if machine.init_pid(target) is None:
        raise LabError(f"{node} ({target.ident}) is not running: a fault needs a machine that runs")
    return target


def _nodes(layout: Layout, node: str) -> list[machine.Machine]:
    """The machine of `node`, or of every node when none is named: those that run."""
    if node:
        return [_running(layout, node)]
    nodes = [each for each in machine.machines(layout) if each.name in load(layout).shape.names]
    return [each for each in nodes if machine.init_pid(each) is not None]


def _write(layout: Layout, target: machine.Machine, lines: list[str]) -> None:
    hardware.append(layout.machine(target.ident) / "instance" / hardware.FILE_NAME, lines)


def _tools(layout: Layout, target: machine.Machine, state: dict[str, object]) -> None:
    """What the fake diagnostics on a machine read; renamed into place, so that one that starts now reads a whole file."""
    place = layout.machine(target.ident) / "instance" / "tools.json"
    draft = place.with_suffix(".new")
    draft.write_text(json.dumps({"seconds": 0.3, **state}))
    draft.rename(place)


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
