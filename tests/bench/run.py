"""`make bench`: the figures of docs/measured.md, measured on the rehearsal cluster and written as JSON.

    demo.json     the demo's timeline: fault to drained, to the first step, to replaced
    agent.json    memory and processor time of the agent and its children on an idle node with 8 GPUs and 32 EFA devices
    hooks.json    whole-process time of each hook on a node, beside a bare Python and LBNL NHC (--nhc)
    faults.json   a fault to the agent's verdict, from the kernel log and by asking
    planner.json  one tick of the planner from 1,000 to 100,000 nodes, and how fast it grows; needs no cluster
    journal.json  what a controller takes to remember a year of journal (needs no cluster)
    resume.json   a fault to the next step of training, beside plain Slurm; brings up clusters of its own, last

The demo brings a cluster up by itself; without it (--only) the cluster that is up is measured. LBNL NHC is no part of this
repository: --nhc DIR names a copy, the script `nhc` with `scripts/*.nhc` beside it. Ratios and percentiles are of one run
on one machine; nothing here asserts.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from agent_load import IDLE_S, agent, faults
from hook_times import RUNS, hooks
from journal import RECORDS, measure
from planner import planner

from nodewatch.lab import machine
from nodewatch.lab.layout import Layout, layout_from

PARTS = ("planner", "demo", "hooks", "agent", "faults", "journal", "resume")


def main() -> int:
    """Measure; the exit code is the demo's, 0 without it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("build/bench"))
    parser.add_argument("--nhc", type=Path, metavar="DIR", help="a copy of LBNL NHC to compare with")
    parser.add_argument("--only", default=",".join(PARTS), help=f"parts with commas between them: {', '.join(PARTS)}")
    options = parser.parse_args()
    output: Path = options.output
    parts = options.only.split(",")
    output.mkdir(parents=True, exist_ok=True)
    if "planner" in parts:
        print("the planner, from 1,000 to 100,000 nodes", flush=True)
        _write(output / "planner.json", planner())
    layout = layout_from(None)
    code = 0
    if "demo" in parts:
        print("the demo, for its times", flush=True)
        code = _demo(output)
    if "hooks" in parts:
        print(f"the hooks, {RUNS} runs each", flush=True)
        if options.nhc is None:
            print("LBNL NHC was not given (--nhc DIR): the hooks are compared with a bare Python alone", flush=True)
        _write(output / "hooks.json", hooks(layout, options.nhc))
    if "agent" in parts:
        print(f"the agent, idle for {IDLE_S:.0f} s", flush=True)
        _write(output / "agent.json", agent(layout))
    if "faults" in parts:
        print("faults, five of each kind", flush=True)
        _controller(layout, "stop")
        try:
            _write(output / "faults.json", faults(layout))
        finally:
            _controller(layout, "start")
    if "journal" in parts:
        print(f"a journal of {RECORDS:,} records", flush=True)
        with tempfile.TemporaryDirectory() as directory:
            _write(output / "journal.json", measure(Path(directory), RECORDS))
    if "resume" in parts:
        print(
            "a fault to the next step, through the queue, inside the allocation and by plain Slurm: half an hour",
            flush=True,
        )
        resume = Path(__file__).with_name("resume.py")
        code = subprocess.run([sys.executable, str(resume), "--output", str(output)], check=False).returncode or code
    return code


def _demo(output: Path) -> int:
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
    return demo.returncode


def _controller(layout: Layout, verb: str) -> None:
    head = machine.find(layout, "head")
    subprocess.run(machine.entering(head, ["systemctl", verb, "nodewatch-controller"]), timeout=60, check=True)


def _write(path: Path, figures: dict[str, Any]) -> None:
    path.write_text(json.dumps(figures, indent=1) + "\n")
    print(path, json.dumps(figures, indent=1), flush=True)


if __name__ == "__main__":
    sys.exit(main())
