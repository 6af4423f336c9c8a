"""Slurm through its commands: scontrol and squeue with --json to read, scontrol to change.

Field shapes differ between releases (data_parser 0.0.37 of Slurm 22.05 to 0.0.4x): a number may be plain or
`{"set","infinite","number"}`, a state a word or a list. Both are read; a document without its list is an error, never
"no nodes".
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from nodewatch.clients.command import CommandResult, run
from nodewatch.errors import SlurmError
from nodewatch.model.cluster import SlurmJob, SlurmNode
from nodewatch.model.hostlist import expand, fold

_T = TypeVar("_T")


class SlurmCommands:
    """Slurm's commands on this machine, each under `deadline_s` seconds."""

    def __init__(self, *, deadline_s: float = 10.0) -> None:
        self._deadline_s = deadline_s

    # -- reading ------------------------------------------------------------------------------------------------------

    def nodes(self) -> dict[str, SlurmNode]:
        """All nodes by name. Raises SlurmError unless the whole list was read."""
        document = self._json("scontrol", "show", "nodes", "--json")
        nodes = _parsed(parse_node, document, "nodes", "scontrol show nodes")
        return {node.name: node for node in nodes}

    def jobs(self) -> dict[int, SlurmJob]:
        """All jobs that slurmctld still knows, ended ones (for MinJobAge) included, by job id. Raises SlurmError."""
        document = self._json("squeue", "--all", "--states=all", "--json")
        jobs = _parsed(parse_job, document, "jobs", "squeue")
        return {job.job_id: job for job in jobs}

    def config(self) -> dict[str, str]:
        """slurmctld's configuration as `scontrol show config` prints it. Raises SlurmError."""
        values = {}
        for line in self._change("show", "config").stdout.splitlines():
            key, separator, value = line.partition("=")
            if separator:
                values[key.strip()] = value.strip()
        return values

    # -- changing -----------------------------------------------------------------------------------------------------

    def drain(self, node: str, reason: str) -> None:
        """See effects.perform.SlurmControl."""
        self._change("update", f"nodename={node}", "state=drain", f"reason={reason}")

    def mark_down(self, node: str, reason: str) -> None:
        """See effects.perform.SlurmControl."""
        self._change("update", f"nodename={node}", "state=down", f"reason={reason}")

    def resume(self, node: str) -> None:
        """See effects.perform.SlurmControl."""
        result = self._scontrol("update", f"nodename={node}", "state=resume")
        # Slurm refuses to resume a node that is in service already: the wish is met.
        if not result.ok and "Invalid node state" in result.complaint and not self._is_out(node):
            return
        self._demand(result)

    def set_address(self, node: str, address: str) -> None:
        """See effects.perform.SlurmControl."""
        self._change("update", f"nodename={node}", f"nodeaddr={address}")

    def reboot(self, node: str, reason: str) -> None:
        """See effects.perform.SlurmControl."""
        self._change("reboot", "ASAP", "nextstate=DOWN", f"reason={reason}", node)

    def requeue(self, job: int | str) -> None:
        """See effects.perform.SlurmControl."""
        result = self._scontrol("requeue", str(job))
        if not result.ok and "pending" in result.complaint.lower():
            return
        self._demand(result)

    def expedite(
        self, job_id: int, *, priority: int, exclude: Sequence[str], comment: str, require: Sequence[str] | None = None
    ) -> None:
        """See effects.perform.SlurmControl."""
        # An empty list clears the exclusions that an earlier start was given.
        excluded = f"excnodelist={fold(exclude)}"
        change = [f"jobid={job_id}", "starttime=now", f"priority={priority}", f"comment={comment}", excluded]
        if require is not None:
            # A node both required and excluded gives BadConstraints and priority 0: the job would never start.
            change.append(f"reqnodelist={fold(require)}")
        self._change("update", *change)

    def reserve(self, name: str, nodes: Sequence[str], minutes: int) -> None:
        """See effects.perform.SlurmControl."""
        result = self._scontrol(
            "create",
            f"reservationname={name}",
            "starttime=now",
            f"duration={minutes}",
            "users=root",
            f"nodes={fold(nodes)}",
            "flags=ignore_jobs",
        )
        if not result.ok and "duplicate" in result.complaint.lower():
            return
        self._demand(result)

    def unreserve(self, name: str) -> None:
        """See effects.perform.SlurmControl."""
        result = self._scontrol("delete", f"reservationname={name}")
        # It ran out by itself, or a try before a crash deleted it.
        if not result.ok and "not found" not in result.complaint.lower():
            self._demand(result)

    # -- below --------------------------------------------------------------------------------------------------------

    def _is_out(self, node: str) -> bool:
        known = self.nodes().get(node)
        return known is None or known.is_out or known.is_down

    def _change(self, *words: str) -> CommandResult:
        return self._demand(self._scontrol(*words))

    def _scontrol(self, *words: str) -> CommandResult:
        return run(["scontrol", *words], deadline_s=self._deadline_s)

    @staticmethod
    def _demand(result: CommandResult) -> CommandResult:
        if not result.ok:
            raise SlurmError(f"`{' '.join(result.argv)}` failed: {result.complaint}")
        return result

    def _json(self, *argv: str) -> Mapping[str, Any]:
        result = self._demand(run(argv, deadline_s=self._deadline_s))
        try:
            document = json.loads(result.stdout)
        except (ValueError, RecursionError) as error:
            raise SlurmError(f"`{' '.join(argv)}` did not print JSON: {error}") from error
        if not isinstance(document, Mapping):
            raise SlurmError(f"`{' '.join(argv)}` printed JSON that is no object")
        problems = document.get("errors")
        if problems:
            raise SlurmError(f"`{' '.join(argv)}` reported errors: {problems}")
        return document


def parse_node(data: Mapping[str, Any]) -> SlurmNode:
    """One entry of `scontrol show nodes --json`."""
    return SlurmNode(
        name=str(data["name"]),
        address=str(data.get("address") or ""),
        states=_words(data.get("state")) | _words(data.get("state_flags")),
        reason=str(data.get("reason") or ""),
        partitions=tuple(str(item) for item in data.get("partitions") or ()),
        slurmd_started_at=_time(data.get("slurmd_start_time")) or 0.0,
    )


def parse_job(data: Mapping[str, Any]) -> SlurmJob:
    """One entry of `squeue --json`."""
    code, signal_number = _exit(data.get("exit_code"))
    return SlurmJob(
        job_id=int(data["job_id"]),
        states=_words(data.get("job_state")),
        nodes=tuple(expand(str(data.get("nodes") or ""))),
        partition=str(data.get("partition") or ""),
        user=str(data.get("user_name") or ""),
        name=str(data.get("name") or ""),
        priority=int(_number(data.get("priority")) or 0),
        restart_count=int(_number(data.get("restart_cnt")) or 0),
        exit_code=code,
        exit_signal=signal_number,
        begins_at=_time(data.get("eligible_time")) if "PENDING" in _words(data.get("job_state")) else None,
        started_at=_time(data.get("start_time")),
        ended_at=_time(data.get("end_time")),
        excluded_nodes=tuple(expand(str(data.get("excluded_nodes") or ""))),
        required_nodes=tuple(expand(str(data.get("required_nodes") or ""))),
        is_batch=bool(data.get("batch_flag", True)),
        comment=str(data.get("comment") or ""),
        extra=str(data.get("extra") or ""),
        array_job_id=int(_number(data.get("array_job_id")) or 0) or None,
        array_task_id=_task(data.get("array_task_id")),
    )


def _parsed(parse: Callable[[Mapping[str, Any]], _T], document: Mapping[str, Any], key: str, source: str) -> list[_T]:
    items = document.get(key)
    if not isinstance(items, list):
        raise SlurmError(f"`{source} --json` has no list {key!r}: its format is not one that this release knows")
    try:
        return [parse(item) for item in items]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        # Half a list must not pass for the whole one.
        raise SlurmError(
            f"`{source} --json` has an entry in {key!r} that this release cannot read ({error!r}): report it with the output"
        ) from error


def _words(value: Any) -> frozenset[str]:
    if value is None:
        return frozenset()
    items = value if isinstance(value, list) else str(value).split("+")
    return frozenset(str(item).strip().upper() for item in items if str(item).strip())


def _number(value: Any) -> float | None:
    if isinstance(value, Mapping):
        return float(value["number"]) if value.get("set") and not value.get("infinite") else None
    return float(value) if isinstance(value, (int, float)) else None


def _time(value: Any) -> float | None:
    number = _number(value)
    return number if number else None


def _task(value: Any) -> int | None:
    number = _number(value)
    return None if number is None else int(number)


def _exit(value: Any) -> tuple[int, int]:
    if isinstance(value, Mapping):
        signal_data = value.get("signal") or {}
        signal_number = _number(signal_data.get("id") if isinstance(signal_data, Mapping) else None)
        return int(_number(value.get("return_code")) or 0), int(signal_number or 0)
    number = int(_number(value) or 0)
    return number >> 8, number & 0x7F
