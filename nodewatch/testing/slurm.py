"""Slurm in memory: nodes, jobs, a queue, and the transitions that the controller relies on.

Its rules are those seen on Slurm 24.11 (docs/lab.md): a requeued job waits two minutes unless its start time is set, a node
that drains keeps its jobs, a node set down loses them and their batch jobs go back to the queue.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from nodewatch.errors import SlurmError
from nodewatch.model.cluster import SlurmJob, SlurmNode

_REQUEUE_HOLD_S = 121.0


class FakeSlurm:
    """See the module. `outage` makes every call fail; `refuse` fails the calls that it names once each."""

    def __init__(self, clock: Callable[[], float], partition: str = "train") -> None:
        self._clock = clock
        self._partition = partition
        self.node_table: dict[str, SlurmNode] = {}
        self.job_table: dict[int, SlurmJob] = {}
        self._sizes: dict[int, int] = {}
        self._next_job = 1
        self.reservations: dict[str, tuple[tuple[str, ...], float]] = {}
        """Nodes and end by reservation name."""
        self.outage = False
        self.refuse: list[str] = []
        self.calls: list[str] = []
        self.watch: Callable[[str, str], None] = lambda _verb, _node: None
        """Called with (verb, node) just before a node is changed."""
        self.before_reason: Callable[[str], None] = lambda _node: None
        """Called with the node before its reason is compared: what an operator does at that moment."""
        self.started: list[tuple[int, int, tuple[str, ...]]] = []
        """(job id, restart count, nodes) for each start since the list was last emptied by the world."""
        self.ended: list[tuple[int, int, str]] = []
        """(job id, restart count, exit code) for each end."""

    # -- set-up -------------------------------------------------------------------------------------------------------

    def add_node(self, name: str, address: str) -> None:
        """An idle node."""
        self.node_table[name] = SlurmNode(
            name=name, address=address, states=frozenset({"IDLE"}), partitions=(self._partition,)
        )

    def submit(self, nodes: int) -> int:
        """A batch job for so many whole nodes; returns its id."""
        job_id = self._next_job
        self._next_job += 1
        self._sizes[job_id] = nodes
        self.job_table[job_id] = SlurmJob(
            job_id=job_id,
            states=frozenset({"PENDING"}),
            partition=self._partition,
            user="ada",
            priority=1000 - job_id,
        )
        return job_id

    def operator(self, node: str, state: str, reason: str = "") -> None:
        """What an administrator does by hand: `drain`, `down` or `resume`."""
        if state == "resume":
            self._resume(node)
        else:
            self._set(node, {"DRAIN"} if state == "drain" else {"DOWN"}, reason)

    def set_responding(self, node: str, responding: bool) -> None:
        """Whether slurmd answers; when it answers again it has been started anew."""
        known = self.node_table[node]
        states = known.states - {"NOT_RESPONDING"} if responding else known.states | {"NOT_RESPONDING"}
        started = self._clock() if responding else known.slurmd_started_at
        self.node_table[node] = dataclasses.replace(known, states=states, slurmd_started_at=started)

    def end_job(self, job_id: int, state: str, exit_code: int) -> None:
        """A running job ends by itself."""
        job = self.job_table[job_id]
        self.ended.append((job_id, job.restart_count, f"{exit_code}:0"))
        self.job_table[job_id] = dataclasses.replace(
            job, states=frozenset({state}), exit_code=exit_code, ended_at=self._clock()
        )
        self._release(job)

    def submit_array(self, tasks: int) -> list[int]:
        """A job array of one node an element; returns the elements' job ids, the first of which is the array's own."""
        ids = [self.submit(1) for _ in range(tasks)]
        for task, job_id in enumerate(ids):
            self.job_table[job_id] = dataclasses.replace(
                self.job_table[job_id], array_job_id=ids[0], array_task_id=task
            )
        return ids

    def set_required(self, job_id: int, nodes: Sequence[str]) -> None:
        """What its user gave as --nodelist."""
        self.job_table[job_id] = dataclasses.replace(self.job_table[job_id], required_nodes=tuple(nodes))

    def set_extra(self, job_id: int, text: str) -> None:
        """What the plugin writes into a job's Extra field."""
        self.job_table[job_id] = dataclasses.replace(self.job_table[job_id], extra=text)

    def schedule(self) -> None:
        """Start what can start, by priority."""
        now = self._clock()
        kept = {node for nodes, end in self.reservations.values() if end > now for node in nodes}
        pending = sorted((j for j in self.job_table.values() if j.is_pending), key=lambda j: (-j.priority, j.job_id))
        for job in pending:
            if (job.begins_at is not None and job.begins_at > now) or job.held_by:
                continue
            free = [
                name
                for name, node in sorted(self.node_table.items())
                if node.is_idle and name not in job.excluded_nodes and name not in kept
            ]
            size = self._sizes[job.job_id]
            if len(free) < size:
                continue
            if not set(job.required_nodes) <= set(free):
                continue
            nodes = tuple(sorted([*job.required_nodes, *(n for n in free if n not in job.required_nodes)][:size]))
            for name in nodes:
                self.node_table[name] = dataclasses.replace(
                    self.node_table[name], states=(self.node_table[name].states - {"IDLE"}) | {"ALLOCATED"}
                )
            restart = job.restart_count
            self.job_table[job.job_id] = dataclasses.replace(
                job, states=frozenset({"RUNNING"}), nodes=nodes, started_at=now, ended_at=None, begins_at=None
            )
            self.started.append((job.job_id, restart, nodes))

    # -- SlurmClient --------------------------------------------------------------------------------------------------

    def nodes(self) -> Mapping[str, SlurmNode]:
        """See effects.perform.SlurmClient."""
        self._call("nodes")
        return dict(self.node_table)

    def jobs(self) -> Mapping[int, SlurmJob]:
        """See effects.perform.SlurmClient."""
        self._call("jobs")
        return dict(self.job_table)

    def drain(self, node: str, reason: str) -> None:
        """See effects.perform.SlurmControl."""
        self._call(f"drain {node}")
        self.watch("drain", node)
        self._set(node, {"DRAIN"}, reason)

    def mark_down(self, node: str, reason: str) -> None:
        """See effects.perform.SlurmControl."""
        self._call(f"down {node}")
        self.watch("down", node)
        self._set(node, {"DOWN"}, reason)
        for job in [j for j in self.job_table.values() if j.is_running and node in j.nodes]:
            self.ended.append((job.job_id, job.restart_count, "0:0"))
            self._back_to_queue(job)

    def set_reason(self, node: str, reason: str, *, was: str) -> None:
        """See effects.perform.SlurmControl."""
        self._call(f"reason {node}")
        self.before_reason(node)
        if self.node_table[node].reason == was:
            self.watch("reason", node)
            self._set(node, set(), reason)

    def resume(self, node: str) -> None:
        """See effects.perform.SlurmControl."""
        self._call(f"resume {node}")
        self.watch("resume", node)
        self._resume(node)

    def set_address(self, node: str, address: str) -> None:
        """See effects.perform.SlurmControl."""
        self._call(f"address {node} {address}")
        self.watch("address", node)
        self.node_table[node] = dataclasses.replace(self.node_table[node], address=address)

    def reboot(self, node: str, reason: str) -> None:
        """See effects.perform.SlurmControl."""
        self._call(f"reboot {node}")
        self.watch("reboot", node)
        self._set(node, {"DRAIN", "REBOOT_ISSUED"}, reason)

    def requeue(self, job: int | str) -> None:
        """See effects.perform.SlurmControl."""
        self._call(f"requeue {job}")
        for known in self._meant("requeue", job):
            if known.is_pending:
                continue
            if known.is_running:
                self.ended.append((known.job_id, known.restart_count, "0:15"))
            self._back_to_queue(known)

    def release(self, job: int | str) -> None:
        """See effects.perform.SlurmControl."""
        self._call(f"release {job}")
        for known in self._meant("release", job):
            states = known.states - {"REQUEUE_HOLD", "SPECIAL_EXIT"}
            self.job_table[known.job_id] = dataclasses.replace(
                known, states=states, held_by="", priority=known.priority or 1
            )

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
        self._call(f"expedite {job}")
        for known in self._meant("update", job):
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
        self._call(f"reserve {name}")
        self.reservations[name] = (tuple(nodes), self._clock() + 60 * minutes)

    def unreserve(self, name: str) -> None:
        """See effects.perform.SlurmControl."""
        self._call(f"unreserve {name}")
        self.reservations.pop(name, None)

    # -- below --------------------------------------------------------------------------------------------------------

    def _meant(self, verb: str, job: int | str) -> list[SlurmJob]:
        """As in Slurm: the id of an array stands for all its elements; components of a heterogeneous job are requeued by
        the first, all together."""
        array, _, task = str(job).partition("_")
        meant = [
            known
            for known in self.job_table.values()
            if (str(known.array_job_id), str(known.array_task_id)) == (array, task)
            or (not task and array in (str(known.job_id), str(known.array_job_id)))
            or (verb == "requeue" and str(known.het_job_id) == array)
        ]
        if not meant:
            raise SlurmError(f"`scontrol {verb} {job}` failed: Invalid job id specified")
        if verb == "requeue" and any(known.het_job_id not in (None, int(array)) for known in meant):
            raise SlurmError(f"`scontrol requeue {job}` failed: Job is not the leader of its heterogeneous job")
        return meant

    def _call(self, what: str) -> None:
        if self.outage:
            raise SlurmError("`scontrol` failed: Unable to contact slurm controller (connect failure)")
        if any(what.startswith(prefix) for prefix in self.refuse):
            self.refuse = [prefix for prefix in self.refuse if not what.startswith(prefix)]
            raise SlurmError(f"`{what}` failed: refused once")
        if what not in ("nodes", "jobs"):
            self.calls.append(what)

    def _set(self, node: str, flags: set[str], reason: str) -> None:
        known = self.node_table[node]
        states = known.states | flags
        if "DOWN" in flags:
            states = states - {"IDLE", "ALLOCATED"}
        self.node_table[node] = dataclasses.replace(known, states=states, reason=reason, reason_at=self._clock())

    def _resume(self, node: str) -> None:
        known = self.node_table[node]
        states = known.states - {"DRAIN", "DOWN", "FAIL", "REBOOT_ISSUED"}
        busy = any(job.is_running and node in job.nodes for job in self.job_table.values())
        states = (states - {"IDLE", "ALLOCATED"}) | {"ALLOCATED" if busy else "IDLE"}
        self.node_table[node] = dataclasses.replace(known, states=states, reason="")

    def _back_to_queue(self, job: SlurmJob) -> None:
        self._release(job)
        self.job_table[job.job_id] = dataclasses.replace(
            job,
            states=frozenset({"PENDING"}),
            nodes=(),
            restart_count=job.restart_count + 1,
            begins_at=self._clock() + _REQUEUE_HOLD_S,
        )

    def _release(self, job: SlurmJob) -> None:
        for name in job.nodes:
            node = self.node_table[name]
            if "ALLOCATED" in node.states:
                self.node_table[name] = dataclasses.replace(node, states=(node.states - {"ALLOCATED"}) | {"IDLE"})
