"""The agent of a node with eight GPUs and 32 EFA devices: memory, processor time, and how soon a fault is its verdict."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from node import NODE, about, in_node

from nodewatch.lab import hardware, machine
from nodewatch.lab.layout import Layout

IDLE_S = 60.0
EFA_DEVICES = 32
GPU_PERIOD_S = 5.0
"""`every_s` of the checks of lost GPUs."""
_EFA = """\
import os, subprocess, sys
# sysfs takes no new directory: a copy of its links with one more class is mounted over it.
tree = "/run/bench-class"
if not os.path.ismount("/sys/class"):
    for kind in os.listdir("/sys/class"):
        os.makedirs(f"{tree}/{kind}", exist_ok=True)
        for entry in os.scandir(f"/sys/class/{kind}"):
            if entry.is_symlink() and not os.path.lexists(f"{tree}/{kind}/{entry.name}"):
                os.symlink(os.readlink(entry.path), f"{tree}/{kind}/{entry.name}")
    port = "lifespan rx_bytes rx_drops rx_pkts tx_bytes tx_pkts retrans_timeout_events unresponsive_remote_events "
    port += "impaired_remote_conn_events rdma_read_bytes rdma_read_wr_err rdma_write_bytes rdma_write_wr_err"
    device = "cmds_err no_completion_cmds submitted_cmds completed_cmds create_qp_err reg_mr_err keep_alive_rcvd"
    for index in range(int(sys.argv[1])):
        base = f"{tree}/infiniband/rdmap{index}s0"
        for path, value in {
            "device/vendor": "0x1d0f", "node_guid": "0000:0000:0000:0000",
            "ports/1/state": "4: ACTIVE", "ports/1/phys_state": "5: LinkUp", "ports/1/rate": "100 Gb/sec (4X EDR)",
            **{f"hw_counters/{name}": "0" for name in device.split()},
            **{f"ports/1/hw_counters/{name}": "0" for name in port.split()},
        }.items():
            os.makedirs(os.path.dirname(f"{base}/{path}"), exist_ok=True)
            with open(f"{base}/{path}", "w") as file:
                file.write(value + "\\n")
    subprocess.run(["mount", "--bind", tree, "/sys/class"], check=True)
print(len(os.listdir("/sys/class/infiniband")))
"""
_LOAD = """\
import json, os, sys, time
root = int(sys.argv[1])
tick = os.sysconf("SC_CLK_TCK")
page = os.sysconf("SC_PAGE_SIZE")

def tree():
    pids = [root]
    for pid in pids:
        try:
            pids += [int(word) for word in open(f"/proc/{pid}/task/{pid}/children").read().split()]
        except FileNotFoundError:
            pass
    return pids

def ticks(pid):
    try:
        fields = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0
    # With the waited-for children of each: those that live for one reading are in the agent's own account.
    return sum(map(int, fields[11:15]))

def resident(pid):
    try:
        return int(open(f"/proc/{pid}/statm").read().split()[1]) * page
    except FileNotFoundError:
        return 0

before, began = sum(map(ticks, tree())), time.monotonic()
most, counts = 0, []
while time.monotonic() - began < float(sys.argv[2]):
    time.sleep(0.5)
    pids = tree()
    counts.append(len(pids))
    most = max(most, sum(map(resident, pids)))
pids = tree()
after, seconds = sum(map(ticks, pids)), time.monotonic() - began
counts.sort()
print(json.dumps({"processes_usual": counts[len(counts) // 2], "resident_mb": round(sum(map(resident, pids)) / 1e6, 1),
                  "resident_most_mb": round(most / 1e6, 1), "cpu_percent": round(100 * (after - before) / tick / seconds, 3),
                  "seconds": round(seconds, 1)}))
"""
_ASK = """\
import json, socket, sys, time

def allowed():
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect("/run/nodewatch/agent.sock")
        sock.sendall(b'{"v":1,"ask":"healthcheck"}\\n')
        return json.loads(sock.makefile().readline())["allow"]

wanted, until = sys.argv[1] == "allow", time.monotonic() + float(sys.argv[2])
while time.monotonic() < until:
    if allowed() == wanted:
        print(time.time())
        sys.exit(0)
    time.sleep(0.005)
sys.exit("the agent's answer did not change")
"""


def agent(layout: Layout) -> dict[str, Any]:
    """Resident memory (MB) and share of one core (percent) of the agent and its children, on a node without a job."""
    efa = int(in_node(layout, ["python3", "-c", _EFA, str(EFA_DEVICES)]).strip())
    in_node(layout, ["systemctl", "restart", "nodewatch-agent"])
    _await(layout, "allow", 60)
    # The first readings import what later ones find in memory.
    in_node(layout, ["sleep", "20"])
    pid = in_node(layout, ["systemctl", "show", "-P", "MainPID", "nodewatch-agent"]).strip()
    told = in_node(layout, ["python3", "-c", _LOAD, pid, str(IDLE_S)], deadline_s=IDLE_S + 60)
    version = in_node(layout, ["nodewatch-agent", "--check-config"]).partition(":")[2].split("(")[0].strip()
    return {**json.loads(told), "gpus": 8, "efa_devices": efa, "checks": version, "bar_resident_mb": 60,
            "bar_cpu_percent": 0.5, **about()}  # fmt: skip


def faults(layout: Layout) -> dict[str, Any]:
    """Seconds from a fault to the hook being denied for it: written to the kernel log, and seen by asking NVML.

    The controller must be stopped: it would replace the node.
    """
    played = layout.machine(machine.find(layout, NODE).ident) / "instance" / hardware.FILE_NAME
    logged, polled = [], []
    for gpu in range(5):
        began = _append(
            played, f"kmsg 3 NVRM: Xid (PCI:0000:53:00): 79, pid=1, name=x, GPU {gpu} has fallen off the bus."
        )
        logged.append(_await(layout, "deny", 30) - began)
        _heal(layout)
        began = _append(played, f"gpu {gpu} lost 1")
        polled.append(_await(layout, "deny", 60) - began)
        _append(played, f"gpu {gpu} lost 0")
        _heal(layout)
    return {
        "kernel_log_to_verdict_s": [round(value, 2) for value in logged],
        "polled_to_verdict_s": [round(value, 2) for value in polled],
        "bar_kernel_log_s": 1.0,
        "bar_polled_s": GPU_PERIOD_S + 1.0,
        **about(),
    }


def _append(path: Path, line: str) -> float:
    with path.open("a") as file:
        file.write(line + "\n")
    return time.time()


def _await(layout: Layout, answer: str, seconds: float) -> float:
    return float(in_node(layout, ["python3", "-c", _ASK, answer, str(seconds)], deadline_s=seconds + 10))


def _heal(layout: Layout) -> None:
    """An agent without memory of the fault, whose log it has read."""
    script = "systemctl stop nodewatch-agent; rm -f /var/lib/nodewatch/state.json; systemctl start nodewatch-agent"
    in_node(layout, ["sh", "-c", script])
    _await(layout, "allow", 60)
    in_node(layout, ["sleep", "12"])
