"""Whole-process time of each hook on a node, beside a bare Python and, where a copy of it is given, LBNL NHC."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from node import about, figures, in_node, put

from nodewatch.lab.layout import Layout

RUNS = 200
HOOKS = "/usr/lib/nodewatch/hooks"
NHC = "/opt/bench-nhc/nhc"
_SETTINGS = """\
CONFDIR=/etc/nhc
INCDIR=/etc/nhc/scripts
NHC_RM=slurm
# The helper that puts a node back in service calls Slurm: left out, in NHC's favour.
MARK_OFFLINE=0
"""
_CONF = """\
* || check_ps_daemon slurmd root
* || check_ps_daemon munged
* || check_ps_daemon systemd-journald
* || check_fs_mount_rw /
* || check_fs_mount_rw /fsx
* || check_fs_free / 3%
* || check_fs_free /tmp 3%
* || check_hw_cpuinfo {cpus}
* || check_hw_physmem {memory_kb} {memory_kb} 3%
* || check_hw_eth {interface}
"""
"""What our health check answers for and NHC can look at too: daemons, mounts, space, memory, processors, network."""
_LOOP = """\
import json, signal, subprocess, sys, time
# Started in the background, this and its children would ignore SIGINT, by which NHC ends its own watchdog: it would take 4 s.
signal.signal(signal.SIGINT, signal.SIG_DFL)
programs = json.loads(sys.argv[1])
times = {name: [] for name in programs}
failed = {}
env = {"PATH": "/usr/bin:/bin", "SLURM_JOB_ID": "1", "SLURM_JOB_UID": "0", "SLURM_JOB_USER": "root", "HOSTNAME": "n1"}
for _ in range(int(sys.argv[2])):
    for name, argv in programs.items():
        began = time.perf_counter()
        done = subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL, process_group=0)
        times[name].append(1000 * (time.perf_counter() - began))
        if done.returncode:
            failed[name] = done.returncode
print(json.dumps({"times": times, "failed": failed}))
"""
"""Takes turns between the programs, so that what else the machine does falls on all of them; each leads a process group
of its own, as slurmd starts them (NHC would otherwise start itself a second time)."""
_DESCRIBE = """\
import json
cpus = [dict(part.split(":", 1) for part in block.replace("\\t", "").splitlines() if ":" in part)
        for block in open("/proc/cpuinfo").read().strip().split("\\n\\n")]
sockets = len({cpu.get("physical id", "0") for cpu in cpus})
print(json.dumps({
    "cpus": f"{sockets} {sockets * int(cpus[-1].get('cpu cores', 1))} {sockets * int(cpus[-1].get('siblings', 1))}",
    "memory_kb": next(line.split()[1] for line in open("/proc/meminfo") if line.startswith("MemTotal:")),
    "interface": next(line.split(":")[0].strip() for line in open("/proc/net/dev") if ":" in line and "lo:" not in line),
}))
"""


def hooks(layout: Layout, nhc: Path | None) -> dict[str, Any]:
    """Milliseconds from fork to exit, measured inside the node by one loop."""
    programs = {
        "python3 -I -S -c pass": ["python3", "-I", "-S", "-c", "pass"],
        "healthcheck": [f"{HOOKS}/healthcheck"],
        "prolog": [f"{HOOKS}/prolog"],
        "epilog": [f"{HOOKS}/epilog"],
        "task_prolog": [f"{HOOKS}/task_prolog"],
    }
    if nhc is not None:
        install_nhc(layout, nhc)
        programs["nhc"] = [NHC, "-n", "nhc"]
        # Its watchdog is told to end and waited for, 0.1 s at a time: without it is what the checks themselves take.
        programs["nhc without its watchdog"] = [NHC, "-n", "nhc", "-t", "0"]
    argv = ["python3", "-c", _LOOP, json.dumps(programs), str(RUNS)]
    told = json.loads(in_node(layout, argv, deadline_s=600))
    result: dict[str, Any] = {
        "runs": RUNS,
        "programs": {name: figures(values) for name, values in told["times"].items()},
        "failed": told["failed"],
        "bar": "healthcheck's median at least 5 times shorter than NHC's, p99 below 50 ms",
        **about(),
    }
    if nhc is None:
        result["nhc"] = "not given: --nhc DIR names a copy of it (the script nhc, and scripts/*.nhc)"
    elif "nhc" in told["failed"]:
        log = in_node(layout, ["sh", "-c", "tail -n 5 /var/log/nhc.log"])
        result["nhc"] = f"its checks failed, so the comparison is void: {log.strip()}"
    else:
        ours = result["programs"]["healthcheck"]["median_ms"]
        for name in ("nhc", "nhc without its watchdog"):
            result[f"times faster than {name}"] = round(result["programs"][name]["median_ms"] / ours, 1)
    return result


def install_nhc(layout: Layout, nhc: Path) -> None:
    """Put the copy in `nhc` on the node, with a plain configuration that passes there."""
    put(layout, NHC, (nhc / "nhc").read_text(), mode="755")
    for script in sorted((nhc / "scripts").glob("*.nhc")):
        put(layout, f"/etc/nhc/scripts/{script.name}", script.read_text())
    described = json.loads(in_node(layout, ["python3", "-c", _DESCRIBE]))
    put(layout, "/etc/nhc/nhc.conf", _CONF.format(**described))
    put(layout, "/etc/default/nhc", _SETTINGS)
    in_node(layout, ["mkdir", "-p", "/run/nhc"])
