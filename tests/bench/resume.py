"""A fault to the next step of training, measured side by side in one run on the rehearsal cluster (root).

    python tests/bench/resume.py [--runs 3] [--slurmd-timeout 30,300] [--output build/bench]

    queue      our --auto-resume: the job goes through the queue, and a warm spare stands in. gpu-lost and node-crash
    inside     our --auto-resume=...,spares=1: the step starts again inside the allocation. gpu-lost and node-crash
    plain      Slurm alone, `sbatch --requeue`, a node free to take the job. node-crash: Slurm does not see a lost GPU, and a
               job that ends of one is not requeued

Plain Slurm waits for SlurmdTimeout, 300 s by default, until it gives a silent node up, and then holds the job for two minutes.
The lab's slurm.conf has SlurmdTimeout=30, which our figures do not wait for either: plain is measured with each of the values
that --slurmd-timeout names, and the ratio is told for each. The first step is the first that the program wrote down after the
fault and after a new start. A table is printed and resume.json written; nothing here asserts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from nodewatch.lab import demo, inject, machine, status
from nodewatch.lab.layout import Layout, layout_from
from nodewatch.lab.process import run

BARS_S = {("queue", "gpu-lost"): 15.0, ("inside", "gpu-lost"): 8.0}
BAR_TIMES = 10.0
PLAIN_SCRIPT = "/fsx/plain.sbatch"
_STEPS = {"STEPS": 4000, "CHECKPOINT_EVERY": 20, "STEP_SECONDS": 0.1}
_FAULT_AFTER_STEP = 45
_START_DEADLINE_S = 120.0
_SETTLE_DEADLINE_S = 240.0
_AGAIN_DEADLINE_S = {"queue": 180.0, "inside": 180.0, "plain": 900.0}
_UP_DEADLINE_S = 900


def main() -> int:
    """Measure; 1 when a run did not come back at all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("build/bench"))
    parser.add_argument("--runs", type=int, default=3, help="of each of ours; of plain Slurm one for each value")
    parser.add_argument("--without-ours", action="store_true", help="plain Slurm alone")
    parser.add_argument("--slurmd-timeout", default="30,300", metavar="S,S", help="of plain Slurm; empty: not measured")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    layout = layout_from(None)
    timeouts = [int(word) for word in options.slurmd_timeout.split(",") if word]
    found: list[dict[str, Any]] = []

    def keep(row: dict[str, Any]) -> None:
        found.append(row)
        print(json.dumps(row), flush=True)
        (options.output / "resume.json").write_text(json.dumps(document(found), indent=1) + "\n")

    if not options.without_ours:
        _with_lab([], lambda: _ours(layout, options.runs, keep))
    for timeout_s in timeouts:
        # A cluster for each: nobody brings back the node that was cut off.
        _with_lab(["--plain", "--nodes=4", "--spares=0"], partial(_plain, layout, timeout_s, keep))
    print(table(document(found)))
    return int(any(row["first_step_s"] is None for row in found))


def document(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures: each run, the medians, and how many times as long plain Slurm took."""
    medians: dict[str, float] = {}
    for name in dict.fromkeys(_name(row) for row in rows):
        known = [row["first_step_s"] for row in rows if _name(row) == name and row["first_step_s"] is not None]
        if known:
            medians[name] = round(statistics.median(known), 2)
    ratios = {
        f"{name} against {ours}": round(medians[name] / medians[ours], 1)
        for name in medians
        if name.startswith("plain")
        for ours in ("queue node-crash", "queue gpu-lost")
        if ours in medians
    }
    return {"median_s": medians, "times_as_fast": ratios, "runs": rows}


def table(figures: dict[str, Any]) -> str:
    """The figures as lines."""
    lines = [f"{'fault to the next step':<44}{'median':>9}   bar"]
    for name, value in figures["median_s"].items():
        way, _, fault = name.partition(" ")
        bar = BARS_S.get((way, fault))
        told = "" if bar is None else f"{bar:.0f} s: {'met' if value <= bar else 'MISSED'}"
        lines.append(f"{name:<44}{value:>7.2f} s   {told}".rstrip())
    for name, value in figures["times_as_fast"].items():
        told = (
            f"{BAR_TIMES:.0f}: {'met' if value >= BAR_TIMES else 'MISSED'}"
            if "against queue node-crash" in name
            else ""
        )
        lines.append(f"{name:<60}{value:>6.1f} times   {told}".rstrip())
    return "\n".join(lines)


def _name(row: dict[str, Any]) -> str:
    after = f" SlurmdTimeout={row['slurmd_timeout_s']}" if row["way"] == "plain" else ""
    return f"{row['way']} {row['fault']}{after}"


def _ours(layout: Layout, runs: int, keep: Callable[[dict[str, Any]], None]) -> None:
    ways = {"queue": ["--auto-resume=3"], "inside": ["--auto-resume=3,spares=1", "--no-kill"]}
    for fault in ("gpu-lost", "node-crash"):
        for way, flags in ways.items():
            for number in range(runs):
                _calm(layout)
                keep(_measure(layout, way, fault, number, [*flags, inject.PRETRAIN]))


def _plain(layout: Layout, timeout_s: int, keep: Callable[[dict[str, Any]], None]) -> None:
    script = (layout.fsx / inject.PRETRAIN.removeprefix("/fsx/")).read_text()
    # sbatch of a Slurm without our plugin does not know the option.
    lines = [line for line in script.splitlines(keepends=True) if not line.startswith("#SBATCH --auto-resume")]
    (layout.fsx / PLAIN_SCRIPT.removeprefix("/fsx/")).write_text("".join(lines))
    conf = layout.etc_slurm / "slurm.conf"
    kept = [line for line in conf.read_text().splitlines() if not line.startswith("SlurmdTimeout=")]
    conf.write_text("\n".join([*kept, f"SlurmdTimeout={timeout_s}"]) + "\n")
    run(machine.entering(machine.find(layout, "head"), ["scontrol", "reconfigure"]), deadline_s=60)
    keep({**_measure(layout, "plain", "node-crash", 0, ["--requeue", PLAIN_SCRIPT]), "slurmd_timeout_s": timeout_s})


def _measure(layout: Layout, way: str, fault: str, number: int, words: list[str]) -> dict[str, Any]:
    name = f"{way}-{fault}-{number}-{int(time.time())}"
    exported = ",".join(["ALL", *(f"{key}={value}" for key, value in _STEPS.items())])
    argv = ["runuser", "-u", demo.USER, "--", "sbatch", "--parsable", "--chdir=/fsx", f"--job-name={name}"]
    argv += [f"--export={exported}", *words]
    head = machine.find(layout, "head")
    job = run(machine.entering(head, argv), deadline_s=30).out.strip().split(";")[0]
    try:
        _until(lambda: _steps(layout, name, since=0.0) >= _FAULT_AFTER_STEP, _START_DEADLINE_S)
        asked = ["squeue", "-h", "-j", job, "-o", "%N"]
        hosts = run(machine.entering(head, asked), deadline_s=10).out.strip()
        nodes = run(machine.entering(head, ["scontrol", "show", "hostnames", hosts]), deadline_s=10).out.split()
        # The second: not that of the batch script, and one that works in each of the ways.
        injected = inject.inject(layout, fault, nodes[1], 2)
        _until(lambda: _again(layout, name, injected.t) is not None, _AGAIN_DEADLINE_S[way])
        first = _again(layout, name, injected.t)
        # Long enough for the controller to see that it goes on; a row tells how often Slurm started it all the same.
        time.sleep(3)
        told = run(machine.entering(head, ["scontrol", "show", "job", "-o", job]), deadline_s=10).out
        restarts = next((word.removeprefix("Restarts=") for word in told.split() if word.startswith("Restarts=")), "")
    finally:
        run(machine.entering(head, ["scancel", job]), deadline_s=30, check=False)
    return {
        "way": way,
        "fault": fault,
        "node": nodes[1],
        "first_step_s": None if first is None else round(first - injected.t, 2),
        "restarts_by_slurm": restarts,
    }


def _steps(layout: Layout, name: str, *, since: float) -> int:
    told = [line["step"] for line in demo.progress(layout, name) if line["event"] == "step" and line["t"] >= since]
    return max(told, default=0)


def _again(layout: Layout, name: str, since: float) -> float | None:
    """When the first step after a new start after `since` was made."""
    started = False
    for line in demo.progress(layout, name):
        started = started or (line["event"] == "start" and line["t"] > since)
        if started and line["event"] == "step":
            return float(line["t"])
    return None


def _calm(layout: Layout) -> None:
    """Every node is in service and one is the spare; a run on a cluster under repair is no run."""

    def is_calm() -> bool:
        nodes = status.slurm_nodes(layout)
        head = machine.find(layout, "head")
        done = run(machine.entering(head, ["nodewatch", "status", "--json"]), deadline_s=30, check=False)
        if done.code not in (0, 1) or not done.out.startswith("{"):
            return False
        known = json.loads(done.out)["nodes"]
        well = all(node["health"] == "healthy" and not node["cases"] for node in known)
        idle = sum(node.state == "idle" for node in nodes)
        return well and idle == len(nodes) - 1 and sum(node["is_spare"] for node in known) == 1

    _until(is_calm, _SETTLE_DEADLINE_S)


def _until(what: Callable[[], bool], deadline_s: float) -> None:
    """Wait; what does not come about is seen in the figures."""
    end = time.monotonic() + deadline_s
    while time.monotonic() < end and not what():
        time.sleep(0.1)


def _with_lab(shape: list[str], what: Callable[[], None]) -> None:
    _lab("down")
    _lab("up", *shape)
    try:
        what()
    finally:
        _lab("down")


def _lab(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "nodewatch.lab", *words], timeout=_UP_DEADLINE_S, check=True)


if __name__ == "__main__":
    sys.exit(main())
