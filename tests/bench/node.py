"""How the benchmarks reach a node of the rehearsal cluster, and what they say of the machine."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import time
from collections.abc import Sequence
from typing import Any

from nodewatch.lab import machine
from nodewatch.lab.layout import Layout

NODE = "n1"


def in_node(layout: Layout, argv: Sequence[str], *, deadline_s: float = 30.0, text: str = "") -> str:
    """What a command on the node prints; the benchmark ends when it fails."""
    found = machine.find(layout, NODE)
    done = subprocess.run(
        machine.entering(found, argv), input=text, capture_output=True, text=True, timeout=deadline_s, check=False
    )
    if done.returncode != 0:
        raise SystemExit(f"bench: {argv[0]} on {NODE} failed: {done.stderr.strip()}")
    return done.stdout


def put(layout: Layout, path: str, text: str, *, mode: str = "644") -> None:
    """Write a file on the node, with its directories."""
    script = 'mkdir -p "$(dirname "$1")" && cat > "$1" && chmod "$2" "$1"'
    in_node(layout, ["sh", "-c", script, "sh", path, mode], text=text)


def figures(values: Sequence[float]) -> dict[str, float]:
    """Median and 99th percentile of milliseconds."""
    ordered = sorted(values)
    p99 = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
    return {"median_ms": round(statistics.median(values), 2), "p99_ms": round(p99, 2)}


def about() -> dict[str, Any]:
    """The host: figures of another are no figures of this one."""
    return {"at": round(time.time()), "cores": os.cpu_count(), "kernel": platform.release()}
