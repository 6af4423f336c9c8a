"""Slurm through its commands: scontrol and squeue with --json to read, scontrol to change.

What each release prints is read in slurm_json.py. Reading the cluster is two commands, `scontrol show nodes` and `squeue`,
whatever its size; nothing here asks node by node or job by job.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from nodewatch.clients.command import CommandResult, run
from nodewatch.clients.slurm_json import jobs_of, nodes_of
from nodewatch.errors import SlurmError
from nodewatch.model.cluster import SlurmJob, SlurmNode
from nodewatch.model.hostlist import fold


class SlurmCommands:
    """Slurm's commands on this machine, each under `deadline_s` seconds."""

    def __init__(self, *, deadline_s: float = 10.0) -> None:
        self._deadline_s = deadline_s

    # -- reading ------------------------------------------------------------------------------------------------------

    def nodes(self) -> dict[str, SlurmNode]:
        """All nodes by name. Raises SlurmError unless the whole list was read."""
        return nodes_of(self._json("scontrol", "show", "nodes", "--json"), "`scontrol show nodes --json`")

    def jobs(self) -> dict[int, SlurmJob]:
        """All jobs that slurmctld still knows, ended ones (for MinJobAge) included, by job id. Raises SlurmError."""
        return jobs_of(self._json("squeue", "--all", "--states=all", "--json"), "`squeue --json`")

    def config(self) -> dict[str, str]:
        """slurmctld's configuration as `scontrol show config` prints it. Raises SlurmError."""
        values = {}
        for line in self._change("show", "config").stdout.splitlines():
            key, separator, value = line.partition("=")
            if separator:
                values[key.strip()] = value.strip()
        return values

    def version(self) -> str:
        """The release of the commands, such as "24.11.5". Raises SlurmError."""
        told = self._change("--version").stdout.strip()
        match = re.search(r"\b(\d+\.\d+(?:\.\d+)?)", told)
        if match is None:
            raise SlurmError(f"`scontrol --version` printed {told[:100]!r}, which names no release")
        return match[1]

    # -- changing -----------------------------------------------------------------------------------------------------

    def drain(self, node: str, reason: str) -> None:
        """See effects.perform.SlurmControl."""
        self._change("update", f"nodename={node}", "state=drain", f"reason={reason}")

    def mark_down(self, node: str, reason: str) -> None:
        """See effects.perform.SlurmControl."""
        self._change("update", f"nodename={node}", "state=down", f"reason={reason}")

    def set_reason(self, node: str, reason: str, *, was: str) -> None:
        """See effects.perform.SlurmControl."""
        # Slurm compares nothing itself: asked just before, what an operator typed since the last look is not written over.
        known = self.nodes().get(node)
        if known is not None and known.reason == was:
            self._change("update", f"nodename={node}", f"reason={reason}")

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

    def release(self, job: int | str) -> None:
        """See effects.perform.SlurmControl."""
        self._change("release", str(job))

    def expedite(
        self,
        job: int | str,
        *,
        priority: int,
        exclude: Sequence[str],
        comment: str,
        require: Sequence[str] | None = None,
    ) -> None:
        """See effects.perform.SlurmControl."""
        # An empty list clears the exclusions that an earlier start was given.
        excluded = f"excnodelist={fold(exclude)}"
        change = [f"jobid={job}", "starttime=now", f"priority={priority}", f"comment={comment}", excluded]
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
        # It ran out by itself, or a try before a crash deleted it: "Requested reservation is invalid".
        complaint = result.complaint.lower()
        if not result.ok and "not found" not in complaint and "reservation is invalid" not in complaint:
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
