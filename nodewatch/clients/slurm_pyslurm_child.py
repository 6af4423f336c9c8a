"""The process that holds pyslurm: requests on standard input, answers on standard output, one JSON object a line.

It is a process of its own because libslurm ends the process that cannot find a slurm.conf, and because a call to a slurmctld
that hangs cannot be taken back. pyslurm is imported here and nowhere else. Written against the documentation of pyslurm
25.11; its API as it differs from scontrol's is explained at each call.

Nodes and jobs are answered in the words of Slurm's own JSON, so that one reader (slurm_json.py) judges both clients.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, TextIO

_UNUSABLE = 3
"""Exit code when pyslurm cannot be used; the sentence is on standard error."""


class Calls:
    """What can be asked, by name. `pyslurm` is the imported package."""

    def __init__(self, pyslurm: Any) -> None:
        self._pyslurm = pyslurm

    def nodes(self) -> dict[str, Any]:
        """All nodes: two RPCs (nodes and partitions)."""
        return {
            "nodes": [
                {
                    "name": node.name,
                    "address": node.address,
                    "state": node.state,
                    "reason": node.reason,
                    "partitions": node.partitions,
                    "slurmd_start_time": node.slurmd_start_time,
                    # Without it less is told, and a release that names it otherwise is no unusable one.
                    "reason_changed_at": getattr(node, "reason_time", None),
                }
                for node in self._pyslurm.Nodes.load().values()
            ]
        }

    def jobs(self) -> dict[str, Any]:
        """All jobs: one RPC. Each user's name is looked up once: without that it is one look-up in LDAP for each job."""
        names: dict[int, str] = {}
        jobs = []
        for job in self._pyslurm.Jobs.load().values():
            if job.user_id not in names:
                names[job.user_id] = job.user_name
            jobs.append(self._job(job, names[job.user_id]))
        return {"jobs": jobs}

    def update_node(self, name: str, changes: Mapping[str, str]) -> None:
        """Change a node's state, reason or address."""
        self._pyslurm.Node(name).modify(self._pyslurm.Node(**changes))

    def requeue(self, job_id: int) -> None:
        """Requeue one job by its own id."""
        self._pyslurm.Job(job_id).requeue()

    def release(self, job_id: int) -> None:
        """Let a held job go."""
        self._pyslurm.Job(job_id).release()

    def update_job(self, job_id: int, changes: Mapping[str, Any]) -> None:
        """Change a job's begin, priority, comment or node lists."""
        self._pyslurm.Job(job_id).modify(self._pyslurm.JobSubmitDescription(**changes))

    def reserve(self, name: str, nodes: str, minutes: int) -> None:
        """Reserve `nodes` for root from now on, unless the reservation is there already."""
        reservation = self._pyslurm.Reservation(
            name=name,
            nodes=nodes,
            users=["root"],
            # Minutes as a number: given as a text, pyslurm would repeat the text sixty times.
            duration=minutes,
            flags=self._pyslurm.ReservationFlags.IGNORE_RUNNING_JOBS,
        )
        try:
            reservation.create()
        except self._pyslurm.PyslurmError:
            # Made by a try before a crash; or made just now: pyslurm judges by an errno that an earlier call may have left.
            if name not in self._reservations():
                raise

    def unreserve(self, name: str) -> None:
        """Delete a reservation; one that is gone already is no error."""
        try:
            self._pyslurm.Reservation(name).delete()
        except self._pyslurm.PyslurmError:
            if name in self._reservations():
                raise

    def _reservations(self) -> frozenset[str]:
        return frozenset(reservation.name for reservation in self._pyslurm.Reservations.load().values())

    @staticmethod
    def _job(job: Any, user: str) -> dict[str, Any]:
        task = job.array_task_id
        if task is None and job.array_id and not job.array_tasks_waiting:
            # pyslurm gives None for a zero. Only the record of the tasks that still wait has no number of its own; taken for
            # that one, task 0 would be requeued by the array's id, and all its brothers with it.
            task = 0
        return {
            "job_id": job.id,
            "job_state": job.state,
            "nodes": job.allocated_nodes,
            "partition": job.partition,
            "user_name": user,
            "name": job.name,
            # "UNLIMITED" where Slurm has not set one yet.
            "priority": job.priority,
            "restart_cnt": job.requeue_count,
            "exit_code": {"return_code": job.exit_code, "signal": {"id": job.exit_code_signal}},
            "eligible_time": job.eligible_time,
            "start_time": job.start_time,
            "end_time": job.end_time,
            "excluded_nodes": job.excluded_nodes,
            "required_nodes": job.required_nodes,
            "batch_flag": job.is_batch_job,
            "comment": job.comment,
            "extra": job.extra,
            "array_job_id": job.array_id,
            "array_task_id": task,
            # Read where they are: without them less is told, and a release that names them otherwise is no unusable one.
            "requeue": bool(getattr(job, "is_requeueable", False)),
            "state_reason": getattr(job, "state_reason", None),
            "het_job_id": getattr(job, "heterogeneous_id", None),
            "het_job_offset": getattr(job, "heterogeneous_offset", None),
            "account": getattr(job, "account", None),
            "standard_error": getattr(job, "standard_error", None),
            "preempt_time": getattr(job, "preempt_time", None),
        }


_CALLS: dict[str, Callable[..., Any]] = {
    "nodes": Calls.nodes,
    "jobs": Calls.jobs,
    "update_node": Calls.update_node,
    "requeue": Calls.requeue,
    "release": Calls.release,
    "update_job": Calls.update_job,
    "reserve": Calls.reserve,
    "unreserve": Calls.unreserve,
}


def answer(calls: Calls, pyslurm: Any, request: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to one request: `value`, `refused` with Slurm's words, or `fault` for a pyslurm unlike its documentation."""
    try:
        return {"value": _CALLS[request["call"]](calls, **request["arguments"])}
    except pyslurm.PyslurmError as error:
        return {"refused": str(error) or type(error).__name__}
    except Exception as error:
        # Another release of pyslurm may lack or rename anything; what it raises then is not to end this process.
        return {"fault": f"{type(error).__name__}: {error}"}


def main() -> int:
    """Serve until standard input ends. With the word `--version` only say which pyslurm this is."""
    # What libslurm or pyslurm print must not stand between the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        import pyslurm
    except Exception as error:
        # Not only ImportError: the import speaks to Slurm.
        print(f"pyslurm cannot be imported: {type(error).__name__}: {error}", file=sys.stderr)
        return _UNUSABLE
    _write(answers, {"version": str(pyslurm.__version__)})
    if "--version" in sys.argv[1:]:
        return 0
    calls = Calls(pyslurm)
    for line in sys.stdin:
        _write(answers, answer(calls, pyslurm, json.loads(line)))
    return 0


def _write(answers: TextIO, value: Mapping[str, Any]) -> None:
    print(json.dumps(value), file=answers, flush=True)


if __name__ == "__main__":
    sys.exit(main())
