"""As much of pyslurm 25.11's documented API as nodewatch uses, on the cluster of fake_cluster.py.

Names, types and habits are those of its documentation: None for what Slurm has no value for, and for a zero too where a number
is "nothing"; one word for a job's state; an exit code above 127 less 128; an empty list or text changes nothing.
The file's keys `pyslurm_version`, `import` ("fatal" or "broken"), `stale_errno` and `renamed` make it misbehave.
"""

from __future__ import annotations

import enum
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from fake_cluster import Cluster, RefusedError

_setup = json.loads(Path(os.environ["FAKE_CLUSTER"]).read_text())
__version__ = _setup.get("pyslurm_version", "25.11.2")

# libslurm may write to standard output at any time.
print("pyslurm: hello on standard output", flush=True)
if _setup.get("import") == "fatal":
    print("fatal: Could not establish a configuration source", file=sys.stderr, flush=True)
    os._exit(1)
if _setup.get("import") == "broken":
    raise ImportError("libslurm.so.44: cannot open shared object file: No such file or directory")


class PyslurmError(Exception):
    pass


class RPCError(PyslurmError):
    def __init__(self, errno: int = -1, msg: str | None = None) -> None:
        self.errno = errno
        self.msg = msg
        super().__init__(msg)


def _cluster(request: str) -> Cluster:
    try:
        return Cluster(request)
    except RefusedError as error:
        raise RPCError(msg=str(error)) from error


class _Collection:
    def __init__(self, items: dict[Any, Any]) -> None:
        self._items = items

    def values(self) -> Iterator[Any]:
        return iter(self._items.values())


class Node:
    _changes: dict[str, Any]
    _settable = ("name", "state", "reason", "address", "comment", "extra", "weight")

    def __init__(self, name: str | None = None, **kwargs: Any) -> None:
        self.__dict__["_changes"] = {}
        self.name = name
        for key, value in kwargs.items():
            setattr(self, key, value)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self._settable:
            raise KeyError(name)
        self.__dict__[name] = value
        self._changes[name] = value

    def modify(self, changes: Node) -> None:
        wanted = {key: value for key, value in changes._changes.items() if key != "name"}
        if wanted.get("state", "DRAIN") not in ("DRAIN", "DOWN", "RESUME"):
            raise ValueError(f"Invalid Node state: {wanted['state']}")
        try:
            _cluster("change").update_node(self.__dict__["name"], **wanted)
        except RefusedError as error:
            raise RPCError(msg=str(error)) from error


class Nodes(_Collection):
    @staticmethod
    def load(preload_passwd_info: bool = False) -> Nodes:
        items = {}
        for data in _cluster("read nodes").data["nodes"]:
            node = Node.__new__(Node)
            node.__dict__.update(
                name=data["name"],
                address=data["address"],
                state="+".join(data["state"]),
                reason=data["reason"],
                partitions=list(data["partitions"]),
                slurmd_start_time=data["started"] or None,
                reason_time=data["reason_at"] or None,
            )
            items[data["name"]] = node
        return Nodes(items)


class JobSubmitDescription:
    _fields = ("begin_time", "priority", "comment", "excluded_nodes", "required_nodes", "time_limit")

    def __init__(self, **kwargs: Any) -> None:
        for key, value in kwargs.items():
            if key not in self._fields:
                raise AttributeError(f"'JobSubmitDescription' object has no attribute {key!r}")
            setattr(self, key, value)


class Job:
    def __init__(self, job_id: int) -> None:
        if not isinstance(job_id, int):
            raise TypeError("an integer is required")
        self.id = job_id

    def requeue(self, hold: bool = False) -> None:
        try:
            _cluster("change").requeue(str(self.id))
        except RefusedError as error:
            raise RPCError(msg=str(error)) from error

    def release(self) -> None:
        try:
            _cluster("change").release(str(self.id))
        except RefusedError as error:
            raise RPCError(msg=str(error)) from error

    def modify(self, changes: JobSubmitDescription) -> None:
        names = {
            "priority": "priority",
            "comment": "comment",
            "excluded_nodes": "excluded",
            "required_nodes": "required",
        }
        wanted = {names[key]: value for key, value in vars(changes).items() if key in names and value}
        wanted = {key: ",".join(value) if isinstance(value, list) else value for key, value in wanted.items()}
        try:
            _cluster("change").update_job(str(self.id), wanted)
        except RefusedError as error:
            raise RPCError(msg=str(error)) from error


class Jobs(_Collection):
    @staticmethod
    def load(preload_passwd_info: bool = False, frozen: bool = False) -> Jobs:
        items = {}
        for data in _cluster("read jobs").data["jobs"]:
            job = Job(data["job_id"])
            signal, code = data["status"] & 0x7F, data["status"] >> 8
            job.__dict__.update(
                state=data["state"],
                allocated_nodes=data["nodes"],
                partition=data["partition"],
                user_id=data["uid"],
                user_name=data["user"],
                name=data["name"],
                priority="UNLIMITED" if data["priority"] == -1 else data["priority"],
                requeue_count=data["restarts"],
                exit_code=0 if signal else code - 128 if code >= 128 else code,
                exit_code_signal=signal,
                eligible_time=data["eligible"] or None,
                start_time=data["start"] or None,
                end_time=data["end"] or None,
                excluded_nodes=data["excluded"],
                required_nodes=data["required"],
                is_batch_job=data["batch"],
                comment=data["comment"],
                extra=data["extra"],
                array_id=data["array"] or None,
                array_task_id=data["task"] or None,
                array_tasks_waiting=data["waiting"],
                is_requeueable=data["requeue"],
                # Slurm's description where there is one, as scontrol shows it.
                state_reason=data["description"] or data["reason"],
                heterogeneous_id=data["het"] or None,
                heterogeneous_offset=data["offset"] or None,
                account=data["account"],
                standard_error=data["stderr"],
            )
            if _setup.get("renamed"):
                del job.__dict__["allocated_nodes"]
            items[job.id] = job
        return Jobs(items)


class ReservationFlags(enum.Flag):
    MAINTENANCE = enum.auto()
    IGNORE_RUNNING_JOBS = enum.auto()


class Reservation:
    nodes: str
    users: list[str]
    duration: int
    flags: ReservationFlags

    def __init__(self, name: str | None = None, **kwargs: Any) -> None:
        self.name = name
        for key, value in kwargs.items():
            if key not in ("nodes", "users", "duration", "flags", "start_time", "end_time"):
                raise KeyError(key)
            setattr(self, key, value)

    def create(self) -> Reservation:
        made = {
            "nodes": self.nodes,
            "minutes": int(self.duration),
            "users": list(self.users),
            "ignores_jobs": ReservationFlags.IGNORE_RUNNING_JOBS in self.flags,
        }
        try:
            _cluster("change").create_reservation(str(self.name), made)
        except RefusedError as error:
            raise RPCError(msg=str(error)) from error
        if _setup.get("stale_errno"):
            raise RPCError(msg="Operation now in progress")
        return self

    def delete(self) -> None:
        try:
            _cluster("change").delete_reservation(str(self.name))
        except RefusedError as error:
            raise RPCError(msg=str(error)) from error


class Reservations(_Collection):
    @staticmethod
    def load() -> Reservations:
        return Reservations({name: Reservation(name) for name in _cluster("read reservations").data["reservations"]})
