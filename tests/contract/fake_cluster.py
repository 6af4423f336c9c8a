"""A Slurm cluster in one JSON file, which the fake commands and the fake pyslurm both read and change.

The file's path is in FAKE_CLUSTER. What is refused is refused in slurmctld's words (slurm_errno.c of Slurm 24.11). Each
request to slurmctld is a line in the file's neighbour `.log`. `fault` in the file: "outage" or "hang".
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any


class RefusedError(Exception):
    """slurmctld's answer when it does not do what it is asked."""


class Cluster:
    """The file, read once; `save` writes it back."""

    def __init__(self, request: str) -> None:
        self._path = Path(os.environ["FAKE_CLUSTER"])
        with self._path.with_suffix(".log").open("a") as log:
            log.write(request + "\n")
        self.data: dict[str, Any] = json.loads(self._path.read_text())
        if self.data.get("fault") == "hang":
            time.sleep(60)
        if self.data.get("fault") == "outage":
            raise RefusedError("Unable to contact slurm controller (connect failure)")

    def save(self) -> None:
        self._path.write_text(json.dumps(self.data))

    def node(self, name: str) -> dict[str, Any]:
        for node in self.data["nodes"]:
            if node["name"] == name:
                return dict_of(node)
        raise RefusedError("Invalid node name specified")

    def job(self, name: str) -> dict[str, Any]:
        array, _, task = name.partition("_")
        for job in self.data["jobs"]:
            if str(job["job_id"]) == name or (task and (str(job["array"]), str(job["task"])) == (array, task)):
                return dict_of(job)
        raise RefusedError("Invalid job id specified")

    def update_node(self, name: str, *, state: str = "", reason: str = "", address: str = "") -> None:
        node = self.node(name)
        states = set(node["state"])
        match state.lower():
            case "drain":
                states.add("DRAIN")
            case "down":
                states = (states - {"IDLE", "MIXED", "ALLOCATED"}) | {"DOWN"}
            case "resume":
                if not states & {"DRAIN", "DOWN", "FAIL"}:
                    raise RefusedError("Invalid node state specified")
                states, node["reason"] = {"IDLE"}, None
            case "":
                pass
            case _:
                raise RefusedError("Invalid node state specified")
        node["state"] = sorted(states)
        node["reason"] = reason or node["reason"]
        node["address"] = address or node["address"]
        self.save()

    def reboot(self, name: str, reason: str) -> None:
        node = self.node(name)
        node["state"] = sorted({*node["state"], "DRAIN", "REBOOT_REQUESTED"})
        node["reason"] = reason
        self.save()

    def requeue(self, name: str) -> None:
        job = self.job(name)
        if job["state"] == "PENDING":
            raise RefusedError("Job is pending execution")
        job.update(state="PENDING", nodes=None, restarts=job["restarts"] + 1)
        self.save()

    def release(self, name: str) -> None:
        job = self.job(name)
        job.update(priority=100, reason="None")
        self.save()

    def update_job(self, name: str, changes: dict[str, Any]) -> None:
        self.job(name).update(changes)
        self.save()

    def create_reservation(self, name: str, reservation: dict[str, Any]) -> None:
        if name in self.data["reservations"]:
            raise RefusedError("Duplicate reservation name")
        self.data["reservations"][name] = reservation
        self.save()

    def delete_reservation(self, name: str) -> None:
        if self.data["reservations"].pop(name, None) is None:
            raise RefusedError("Requested reservation is invalid")
        self.save()


def dict_of(value: Any) -> dict[str, Any]:
    assert isinstance(value, dict)
    return value
