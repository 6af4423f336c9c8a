"""Slurm and the machines of a simulated cluster: like the fakes of `World`, with indexes, for ten thousand nodes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence

from nodewatch.model.cluster import SlurmJob, SlurmNode

_REQUEUE_HOLD_S = 121.0
_OUT = frozenset({"DRAIN", "DOWN", "FAIL"})


class SimSlurm:
    """Nodes and jobs with the transitions that the controller relies on (docs/lab.md), each in constant time."""

    def __init__(self, clock: Callable[[], float], touch: Callable[[str, str, str], None]) -> None:
        """`touch(verb, node, reason)` is called just before the controller changes a node."""
        self._clock = clock
        self._touch = touch
        self.node_table: dict[str, SlurmNode] = {}
        self.job_table: dict[int, SlurmJob] = {}
        self.sizes: dict[int, int] = {}
        self.on: dict[str, int] = {}
        """The running job by node."""
        self.idle: dict[str, None] = {}
        self.pending: dict[int, None] = {}
        self.changed: set[str] = set()
        """Nodes whose state changed since the simulation looked last."""
        self.ended: list[tuple[SlurmJob, str]] = []
        """Runs that the controller's actions ended, with the exit code, since the simulation looked last."""
        self.reservations: dict[str, tuple[tuple[str, ...], float]] = {}

    # -- what happens -------------------------------------------------------------------------------------------------

    def add_node(self, name: str, partition: str) -> None:
        """An idle node."""
        self._put(SlurmNode(name=name, address=name, states=frozenset({"IDLE"}), partitions=(partition,)))

    def submit(self, job: SlurmJob, size: int) -> None:
        """A job that waits for `size` whole nodes."""
        self.job_table[job.job_id] = job
        self.sizes[job.job_id] = size
        self.pending[job.job_id] = None

    def end(self, job_id: int, state: str, exit_code: int = 0) -> SlurmJob:
        """A running job ends by itself; returns it as it was."""
        job = self.job_table[job_id]
        self.job_table[job_id] = dataclasses.replace(
            job, states=frozenset({state}), exit_code=exit_code, ended_at=self._clock()
        )
        self._release(job)
        return job

    def forget(self, job_id: int) -> None:
        """slurmctld forgets an ended job (MinJobAge)."""
        job = self.job_table.get(job_id)
        if job is not None and not job.is_active and not job.is_pending:
            del self.job_table[job_id], self.sizes[job_id]

    def schedule(self) -> list[SlurmJob]:
        """Start what fits, by priority; returns what was started."""
        now = self._clock()
        self.reservations = {name: kept for name, kept in self.reservations.items() if kept[1] > now}
        kept = {node for nodes, _ in self.reservations.values() for node in nodes}
        started = []
        for job_id in sorted(self.pending, key=lambda key: (-self.job_table[key].priority, key)):
            job, size = self.job_table[job_id], self.sizes[job_id]
            if len(self.idle) < size or (job.begins_at is not None and job.begins_at > now):
                continue
            free: list[str] = []
            for name in self.idle:
                if name not in job.excluded_nodes and name not in kept:
                    free.append(name)
                    if len(free) == size:
                        break
            if len(free) < size:
                continue
            running = dataclasses.replace(
                job,
                states=frozenset({"RUNNING"}),
                nodes=tuple(sorted(free)),
                started_at=now,
                ended_at=None,
                begins_at=None,
            )
            self.job_table[job_id] = running
            del self.pending[job_id]
            for name in free:
                self.on[name] = job_id
                self._with(name, add={"ALLOCATED"}, drop={"IDLE"})
            started.append(running)
        return started

    def set_responding(self, node: str, responding: bool) -> None:
        """Whether slurmd answers; when it answers again it has been started anew."""
        known = self.node_table[node]
        if responding:
            states = known.states - {"NOT_RESPONDING", "REBOOT_ISSUED"}
            self._put(dataclasses.replace(known, states=states, slurmd_started_at=self._clock()))
        else:
            self._with(node, add={"NOT_RESPONDING"})

    def operator(self, node: str, reason: str) -> None:
        """A human drains a node, or returns it with an empty reason."""
        if reason:
            self._with(node, add={"DRAIN"}, reason=reason)
        else:
            self._back(node)

    # -- SlurmControl -------------------------------------------------------------------------------------------------

    def drain(self, node: str, reason: str) -> None:
        """See effects.perform.SlurmControl."""
        self._touch("drain", node, reason)
        self._with(node, add={"DRAIN"}, reason=reason)

    def mark_down(self, node: str, reason: str) -> None:
        """See effects.perform.SlurmControl."""
        self._touch("down", node, reason)
        self._with(node, add={"DOWN"}, drop={"IDLE", "ALLOCATED"}, reason=reason)
        job_id = self.on.get(node)
        if job_id is not None:
            self._requeue(self.job_table[job_id], "0:0")

    def set_reason(self, node: str, reason: str, *, was: str) -> None:
        """See effects.perform.SlurmControl."""
        if self.node_table[node].reason == was:
            self._touch("reason", node, reason)
            self._with(node, reason=reason)

    def resume(self, node: str) -> None:
        """See effects.perform.SlurmControl."""
        self._touch("resume", node, "")
        self._back(node)

    def set_address(self, node: str, address: str) -> None:
        """See effects.perform.SlurmControl."""
        self._touch("address", node, "")
        self._put(dataclasses.replace(self.node_table[node], address=address))

    def reboot(self, node: str, reason: str) -> None:
        """See effects.perform.SlurmControl."""
        self._touch("reboot", node, reason)
        self._with(node, add={"DRAIN", "REBOOT_ISSUED", "NOT_RESPONDING"}, reason=reason)

    def requeue(self, job: int | str) -> None:
        """See effects.perform.SlurmControl."""
        known = self.job_table[int(job)]
        if not known.is_pending:
            self._requeue(known, "0:15" if known.is_running else "")

    def release(self, job: int | str) -> None:
        """See effects.perform.SlurmControl."""
        self.job_table[int(job)] = dataclasses.replace(self.job_table[int(job)], held_by="")

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
        known = self.job_table[int(job)]
        self.job_table[known.job_id] = dataclasses.replace(
            known,
            begins_at=None,
            priority=priority,
            excluded_nodes=tuple(exclude),
            required_nodes=known.required_nodes if require is None else tuple(require),
            comment=comment,
        )

    def reserve(self, name: str, nodes: Sequence[str], minutes: int) -> None:
        """See effects.perform.SlurmControl."""
        self.reservations[name] = (tuple(nodes), self._clock() + 60 * minutes)

    def unreserve(self, name: str) -> None:
        """See effects.perform.SlurmControl."""
        self.reservations.pop(name, None)

    # -- below --------------------------------------------------------------------------------------------------------

    def _requeue(self, job: SlurmJob, exit_code: str) -> None:
        if job.is_running:
            self.ended.append((job, exit_code))
            self._release(job)
        self.job_table[job.job_id] = dataclasses.replace(
            job,
            states=frozenset({"PENDING"}),
            nodes=(),
            restart_count=job.restart_count + 1,
            begins_at=self._clock() + _REQUEUE_HOLD_S,
        )
        self.pending[job.job_id] = None

    def _release(self, job: SlurmJob) -> None:
        for name in job.nodes:
            self.on.pop(name, None)
            known = self.node_table[name]
            if "ALLOCATED" in known.states:
                self._with(name, add={"IDLE"}, drop={"ALLOCATED"})

    def _back(self, node: str) -> None:
        state = "ALLOCATED" if node in self.on else "IDLE"
        self._with(node, add={state}, drop={*_OUT, "REBOOT_ISSUED", "IDLE", "ALLOCATED"} - {state}, reason="")

    def _with(self, node: str, *, add: Iterable[str] = (), drop: Iterable[str] = (), reason: str | None = None) -> None:
        known = self.node_table[node]
        states = (known.states - frozenset(drop)) | frozenset(add)
        self._put(dataclasses.replace(known, states=states, reason=known.reason if reason is None else reason))

    def _put(self, node: SlurmNode) -> None:
        self.node_table[node.name] = node
        self.changed.add(node.name)
        if node.is_idle:
            self.idle[node.name] = None
        else:
            self.idle.pop(node.name, None)
