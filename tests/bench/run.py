"""`make bench`: the figures of docs/measured.md, measured on the rehearsal cluster and written as JSON.

    demo.json     the demo's timeline: fault to drained, to the first step, to replaced
    agent.json    memory and processor time of the agent and its child on an idle node
    hooks.json    whole-process time of each hook on a node, beside a bare Python and NHC-like work of none

Ratios and percentiles are of one run on one machine; nothing here asserts.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nodewatch.lab import machine
from nodewatch.lab.layout import Layout, layout_from

NODE = "n1"
IDLE_S = 60.0
HOOK_RUNS = 200
HOOKS = "/usr/lib/nodewatch/hooks"


def main() -> int:
    """Measure everything; the exit code is the demo's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("build/bench"))
    output: Path = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    layout = layout_from(None)
    print("the demo, for its times", flush=True)
    demo = subprocess.run(
        [sys.executable, "-m", "nodewatch.cli", "lab", "demo", "--json", "--output", str(output / "demo")],
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    print(demo.stderr)
    if demo.stdout.strip():
        document = json.loads(demo.stdout.splitlines()[-1])
        _write(output / "demo.json", {key: value for key, value in document.items() if key != "events"})
    print(f"the agent, idle for {IDLE_S:.0f} s", flush=True)
    _write(output / "agent.json", agent(layout))
    print(f"the hooks, {HOOK_RUNS} runs each", flush=True)
    _write(output / "hooks.json", hooks(layout))
    return demo.returncode


def agent(layout: Layout) -> dict[str, Any]:
    """Resident memory (MB) and share of one core (percent) of the agent and its children, on a node without a job."""
    main_pid = int(_in_node(layout, ["systemctl", "show", "-P", "MainPID", "nodewatch-agent"]).strip())
    script = (
        "import os,sys,time,json\n"
        "root=int(sys.argv[1]); tick=os.sysconf('SC_CLK_TCK')\n"
        "def tree():\n"
        "    out=[root]\n"
        "    for pid in out:\n"
        "        out+=[int(x) for x in open(f'/proc/{pid}/task/{pid}/children').read().split()]\n"
        "    return out\n"
        "def ticks(pid):\n"
        "    f=open(f'/proc/{pid}/stat').read().rpartition(')')[2].split(); return sum(map(int,f[11:15]))\n"
        "def rss(pid):\n"
        "    return int(open(f'/proc/{pid}/statm').read().split()[1])*os.sysconf('SC_PAGE_SIZE')\n"
        "a=sum(map(ticks,tree())); t=time.monotonic(); time.sleep(float(sys.argv[2]))\n"
        "pids=tree(); b=sum(map(ticks,pids)); s=time.monotonic()-t\n"
        "print(json.dumps({'processes':len(pids),'resident_mb':round(sum(map(rss,pids))/1e6,1),"
        "'cpu_percent':round(100*(b-a)/tick/s,3),'seconds':round(s,1)}))\n"
    )
    told = _in_node(layout, ["python3", "-c", script, str(main_pid), str(IDLE_S)], deadline_s=IDLE_S + 30)
    return {**json.loads(told), "bar_resident_mb": 60, "bar_cpu_percent": 0.5, **_machine()}


def hooks(layout: Layout) -> dict[str, Any]:
    """Milliseconds from fork to exit, measured inside the node by one loop that takes turns between the programs."""
    programs = {
        "python3 -I -S -c pass": ["python3", "-I", "-S", "-c", "pass"],
        "healthcheck": [f"{HOOKS}/healthcheck"],
        "prolog": [f"{HOOKS}/prolog"],
        "epilog": [f"{HOOKS}/epilog"],
        "task_prolog": [f"{HOOKS}/task_prolog"],
    }
    script = (
        "import json,os,subprocess,sys,time\n"
        "programs=json.loads(sys.argv[1]); times={k:[] for k in programs}\n"
        "env={'PATH':'/usr/bin:/bin','SLURM_JOB_ID':'1','SLURM_JOB_UID':'0','SLURM_JOB_USER':'root'}\n"
        "for _ in range(int(sys.argv[2])):\n"
        "    for name,argv in programs.items():\n"
        "        t=time.perf_counter()\n"
        "        subprocess.run(argv,env=env,stdout=subprocess.DEVNULL,stderr=subprocess.DEVNULL)\n"
        "        times[name].append(1000*(time.perf_counter()-t))\n"
        "print(json.dumps(times))\n"
    )
    told = json.loads(_in_node(layout, ["python3", "-c", script, json.dumps(programs), str(HOOK_RUNS)], deadline_s=300))
    figures = {
        name: {"median_ms": round(statistics.median(values), 2), "p99_ms": round(_percentile(values, 0.99), 2)}
        for name, values in told.items()
    }
    return {"runs": HOOK_RUNS, "programs": figures, **_machine()}


def _percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _in_node(layout: Layout, argv: Sequence[str], *, deadline_s: float = 30.0) -> str:
    found = machine.find(layout, NODE)
    done = subprocess.run(
        machine.entering(found, argv), capture_output=True, text=True, timeout=deadline_s, check=False
    )
    if done.returncode != 0:
        raise SystemExit(f"bench: {argv[0]} on {NODE} failed: {done.stderr.strip()}")
    return done.stdout


def _machine() -> dict[str, Any]:
    return {"at": round(time.time()), "cores": os.cpu_count(), "kernel": platform.release()}


def _write(path: Path, figures: dict[str, Any]) -> None:
    path.write_text(json.dumps(figures, indent=1) + "\n")
    print(path, json.dumps(figures, indent=1), flush=True)


if __name__ == "__main__":
    sys.exit(main())
