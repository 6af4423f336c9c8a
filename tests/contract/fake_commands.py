"""scontrol and squeue on the cluster of fake_cluster.py: as much of them as nodewatch uses, printing as Slurm 25.11 does."""

from __future__ import annotations

import json
import sys
from typing import Any

from fake_cluster import Cluster, RefusedError


def number(value: int | None) -> dict[str, Any]:
    return {"set": value is not None, "infinite": value == -1, "number": max(value or 0, 0)}


def node(data: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": data["name"],
        "hostname": data["name"],
        "address": data["address"],
        "state": data["state"],
        "reason": data["reason"] or "",
        "partitions": data["partitions"],
        "slurmd_start_time": number(data["started"]),
        "reason_changed_at": number(data["reason_at"]),
        "next_state_after_reboot": ["INVALID"],
    }


def job(data: dict[str, Any]) -> dict[str, Any]:
    signal = data["status"] & 0x7F
    return {
        "job_id": data["job_id"],
        "job_state": [data["state"]],
        "nodes": data["nodes"] or "",
        "job_resources": None,
        "partition": data["partition"],
        "user_name": data["user"],
        "name": data["name"],
        "priority": number(data["priority"]),
        "restart_cnt": data["restarts"],
        "exit_code": {
            "status": ["SIGNALED" if signal else "ERROR" if data["status"] else "SUCCESS"],
            "return_code": number(None if signal else data["status"] >> 8),
            "signal": {"id": number(signal or None), "name": ""},
        },
        "eligible_time": number(data["eligible"]),
        "start_time": number(data["start"]),
        "end_time": number(data["end"]),
        "excluded_nodes": data["excluded"] or "",
        "required_nodes": data["required"] or "",
        "batch_flag": data["batch"],
        "comment": data["comment"] or "",
        "extra": data["extra"] or "",
        "array_job_id": number(data["array"]),
        "array_task_id": number(data["task"]),
        "array_task_string": data["waiting"] or "",
        "requeue": data["requeue"],
        "flags": ["EXPEDITED_REQUEUE"] if data["expedited"] else ["USING_DEFAULT_PARTITION"],
        "state_reason": data["reason"],
        "state_description": data["description"] or "",
        "preempt_time": number(data["preempted"]),
        "het_job_id": number(data["het"]),
        "het_job_offset": number(data["offset"]),
        "account": data["account"] or "",
        "standard_error": data["stderr"] or "",
    }


def show(key: str, items: list[dict[str, Any]]) -> None:
    version = {"major": "25", "micro": "7", "minor": "11"}
    meta = {"plugin": {"data_parser": "data_parser/v0.0.44"}, "slurm": {"version": version, "release": "25.11.7"}}
    print(json.dumps({key: items, "meta": meta, "errors": [], "warnings": []}))


def scontrol(words: list[str]) -> None:
    pairs = dict(word.split("=", 1) for word in words if "=" in word)
    match words:
        case ["--version"]:
            print("slurm 25.11.7")
        case ["show", "nodes", "--json"]:
            show("nodes", [node(data) for data in Cluster("read nodes").data["nodes"]])
        case ["show", "config"]:
            Cluster("read config")
            print("Configuration data as of 2026-01-01T00:00:00\nClusterName             = east")
        case ["update", first, *_] if first.startswith("nodename="):
            Cluster("change").update_node(
                pairs["nodename"],
                state=pairs.get("state", ""),
                reason=pairs.get("reason", ""),
                address=pairs.get("nodeaddr", ""),
            )
        case ["update", first, *_] if first.startswith("jobid="):
            names = {"priority": "priority", "comment": "comment", "excnodelist": "excluded", "reqnodelist": "required"}
            changes: dict[str, Any] = {names[key]: value for key, value in pairs.items() if key in names}
            changes["priority"] = int(changes["priority"])
            Cluster("change").update_job(pairs["jobid"], changes)
        case ["reboot", "ASAP", "nextstate=DOWN", _, name]:
            Cluster("change").reboot(name, pairs["reason"])
        case ["requeue", name]:
            Cluster("change").requeue(name)
        case ["release", name]:
            Cluster("change").release(name)
        case ["create", *_]:
            made = {"nodes": pairs["nodes"], "minutes": int(pairs["duration"]), "users": pairs["users"].split(",")}
            Cluster("change").create_reservation(
                pairs["reservationname"], {**made, "ignores_jobs": pairs["flags"] == "ignore_jobs"}
            )
        case ["delete", _]:
            Cluster("change").delete_reservation(pairs["reservationname"])
        case _:
            raise RefusedError(f"invalid keyword: {words}")


def main() -> int:
    program, *words = sys.argv[1:]
    try:
        if program == "squeue":
            assert words == ["--all", "--states=all", "--json"], words
            show("jobs", [job(data) for data in Cluster("read jobs").data["jobs"]])
        else:
            scontrol(words)
    except RefusedError as error:
        print(f"slurm error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
