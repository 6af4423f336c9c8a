"""scontrol and squeue of a small cluster, as files: they read slurm.conf as Slurm does, and keep the nodes in a JSON file."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

from nodewatch.model.hostlist import expand

PROGRAM: str = globals()["PROGRAM"]
"""scontrol or squeue: whoever runs this file says which."""
PLACE = Path(os.environ["FAKE_SLURM"])
STATE = PLACE / "state.json"
KEYS = {"nodename", "cpus", "realmemory", "gres", "feature", "state", "nodes", "default", "maxtime", "partitionname"}


def lines(path: Path) -> list[str]:
    found = []
    for line in path.read_text().splitlines():
        words = line.split()
        if words[:1] == ["include"]:
            found += lines(path.parent / words[1])
        elif line and not line.startswith("#"):
            found.append(line)
    return found


def parse() -> tuple[list[str], dict[str, list[str]]]:
    conf = Path(os.environ.get("SLURM_CONF", PLACE / "slurm.conf"))
    nodes: list[str] = []
    partitions: dict[str, list[str]] = {}
    for line in lines(conf):
        keys = dict(word.split("=", 1) for word in line.split() if "=" in word)
        if line.startswith(("NodeName=", "PartitionName=")):
            for key in keys:
                if key.lower() not in KEYS:
                    fail(f"scontrol: error: Parsing error at unrecognized key: {key}")
        if line.startswith("NodeName="):
            nodes += expand(keys["NodeName"])
        if line.startswith("PartitionName="):
            partitions[keys["PartitionName"]] = nodes if keys["Nodes"] == "ALL" else expand(keys["Nodes"])
    return nodes, partitions


def fail(text: str) -> None:
    print(text, file=sys.stderr)
    sys.exit(1)


def main() -> None:
    name, words = PROGRAM, sys.argv[1:]
    with (PLACE / "calls").open("a") as calls:
        calls.write(" ".join([name, *words]) + "\n")
    # Every command of Slurm reads its files first.
    names, partitions = parse()
    state = json.loads(STATE.read_text()) if STATE.exists() else {"nodes": {}, "jobs": {}}
    if name == "squeue":
        jobs = [
            {"job_id": int(key), "job_state": ["RUNNING"], "nodes": nodes, "partition": "train", "user_name": "ada"}
            for key, nodes in state["jobs"].items()
        ]
        print(json.dumps({"jobs": jobs, "errors": []}))
    elif words[:2] == ["show", "nodes"]:
        nodes = [
            {"name": key, "hostname": key, "partitions": [p for p, m in partitions.items() if key in m], **value}
            for key, value in state["nodes"].items()
        ]
        print(json.dumps({"nodes": nodes, "errors": []}))
    elif words[0] == "reconfigure":
        if (PLACE / "refuse").exists():
            fail("slurm_reconfigure error: Unspecified error")
        boots = "IDLE" if (PLACE / "boots").exists() else "UNKNOWN"
        new = {"address": "", "state": [boots], "reason": "", "slurmd_start_time": {"set": True, "number": 1}}
        state["nodes"] = {n: {**state["nodes"].get(n, new), "address": n} for n in names}
    elif words[0] == "ping":
        print("Slurmctld(primary) at head is UP")
    elif words[0] == "update":
        keys = dict(word.split("=", 1) for word in words[1:])
        node = state["nodes"][keys["nodename"]]
        if "nodeaddr" in keys:
            node["address"] = keys["nodeaddr"]
        if keys.get("state") == "drain":
            node["state"] = sorted({*node["state"], "DRAIN"})
            node["reason"] = keys["reason"]
        if keys.get("state") == "resume":
            node["state"], node["reason"] = [s for s in node["state"] if s != "DRAIN"], ""
    elif not re.match(r"show hostnames", " ".join(words)):
        fail(f"not faked: {words}")
    STATE.write_text(json.dumps(state))


main()
