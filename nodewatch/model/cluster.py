"""The cluster at one instant: Slurm's nodes and jobs, EC2's instances, and what each agent last said."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from nodewatch.model.health import StandingFinding, Verdict

OWNED_PREFIX = "nodewatch:"
"""Our drain reasons start so; a node drained with any other reason is somebody else's and is left alone."""

SPARE_REASON = "nodewatch: spare"
"""The reason on a healthy node that we keep out of service so that it can stand in for a broken one at once."""

# What slurmctld itself writes as the reason when it drains a node, or gives it up (seen on 24.11).
_DRAINED_BY_SLURM = ("Prolog error", "Epilog error", "Kill task failed")
_DOWN_BY_SLURM = ("Not responding", "Node unexpectedly rebooted")

_BUSY_FLAGS = frozenset({"ALLOCATED", "MIXED", "COMPLETING"})
_OUT_FLAGS = frozenset({"DRAIN", "DRAINED", "DRAINING", "FAIL", "FAILING"})
_MAINTENANCE_FLAGS = frozenset({"MAINTENANCE", "MAINT", "RESERVED", "POWERED_DOWN", "POWERING_DOWN", "POWER_DOWN"})
_ACTIVE_JOB_STATES = frozenset(
    {"RUNNING", "SUSPENDED", "COMPLETING", "CONFIGURING", "STAGE_OUT", "SIGNALING", "STOPPED"}
)
_FAILED_JOB_STATES = frozenset({"FAILED", "NODE_FAIL", "BOOT_FAIL", "LAUNCH_FAILED", "OUT_OF_MEMORY"})


@dataclass(frozen=True, slots=True, kw_only=True)
class SlurmNode:
    """One node as slurmctld sees it; `states` are Slurm's own words, a base state and flags."""

    name: str
    address: str
    states: frozenset[str]
    reason: str = ""
    partitions: tuple[str, ...] = ()
    slurmd_started_at: float = 0.0
    """When the slurmd that registered last was started, by the node's own clock; 0 when none has."""
    reason_at: float = 0.0
    """When the reason was written, by slurmctld's clock; 0 where that is not told."""

    @property
    def is_out(self) -> bool:
        """Slurm starts no new job here (drain or fail flag)."""
        return not _OUT_FLAGS.isdisjoint(self.states)

    @property
    def is_down(self) -> bool:
        """slurmctld has given the node up, or was told to."""
        return "DOWN" in self.states

    @property
    def is_busy(self) -> bool:
        """Work of a job, or its clean-up, may still be on the node. DRAIN alone does not say that it is empty."""
        return not _BUSY_FLAGS.isdisjoint(self.states)

    @property
    def is_responding(self) -> bool:
        """slurmd answers slurmctld."""
        return "NOT_RESPONDING" not in self.states

    @property
    def is_idle(self) -> bool:
        """In service with nothing on it."""
        return (
            "IDLE" in self.states
            and not self.is_busy
            and not self.is_out
            and not self.is_down
            and not self.is_in_maintenance
            and self.is_responding
        )

    @property
    def is_in_maintenance(self) -> bool:
        """Reserved by an administrator, or powered away: not ours to touch."""
        return not _MAINTENANCE_FLAGS.isdisjoint(self.states)

    @property
    def is_rebooting(self) -> bool:
        """A reboot was asked for or is under way."""
        return bool(self.states & {"REBOOT_REQUESTED", "REBOOT_ISSUED", "REBOOT"})

    @property
    def is_ours(self) -> bool:
        """Taken out of service by nodewatch, spares included."""
        return self.reason.startswith(OWNED_PREFIX)

    @property
    def is_foreign(self) -> bool:
        """Taken out of service by somebody else, with or without a reason."""
        return (self.is_out or self.is_down) and not self.is_ours and not self._is_given_up_by_slurm

    @property
    def is_spare(self) -> bool:
        """Held by us as a warm spare."""
        return self.is_out and self.reason.startswith(SPARE_REASON)

    @property
    def _is_given_up_by_slurm(self) -> bool:
        # Nobody decided it, so a repair may take over. A failed prolog or epilog is most often our own veto, which is
        # faster than our drain: taken for somebody's wish it would lock the very node out of its repair.
        if self.is_out:
            return self.reason.startswith(_DRAINED_BY_SLURM)
        return self.reason == "" or self.reason.startswith(_DOWN_BY_SLURM)


@dataclass(frozen=True, slots=True, kw_only=True)
class SlurmJob:
    """One job. Times are seconds since the epoch, None where Slurm has none."""

    job_id: int
    states: frozenset[str]
    nodes: tuple[str, ...] = ()
    partition: str = ""
    user: str = ""
    name: str = ""
    priority: int = 0
    restart_count: int = 0
    exit_code: int = 0
    exit_signal: int = 0
    begins_at: float | None = None
    started_at: float | None = None
    ended_at: float | None = None
    excluded_nodes: tuple[str, ...] = ()
    required_nodes: tuple[str, ...] = ()
    is_batch: bool = True
    comment: str = ""
    extra: str = ""
    """Slurm's Extra field; our plugin writes the mark there for a step of a job that was submitted without it."""
    array_job_id: int | None = None
    array_task_id: int | None = None
    may_requeue: bool = False
    """Slurm lets it be put back into the queue (`sbatch --requeue`, or JobRequeue=1): its user expects a fresh start."""
    is_expedited: bool = False
    """`sbatch --requeue=expedite` (25.11): Slurm itself requeues it after a lost node or a failed epilog, before all others."""
    held_by: str = ""
    """Who holds it in the queue: `user`, `administrator`, `slurm` (a launch that failed, too many requeues), or nobody."""
    preempted_at: float | None = None
    het_job_id: int | None = None
    """The first component of its heterogeneous job: scontrol requeues that one, and all others with it."""
    het_job_offset: int | None = None
    account: str = ""
    stderr_path: str = ""
    """Where its standard error goes; Slurm's `%` patterns may stand in it."""

    @property
    def slurm_id(self) -> str:
        """What scontrol is given for this job alone: the bare id of an array's own job would mean all its elements."""
        if self.array_job_id is not None and self.array_task_id is not None:
            return f"{self.array_job_id}_{self.array_task_id}"
        return str(self.job_id)

    @property
    def requeue_id(self) -> str:
        """What `scontrol requeue` is given: the components of a heterogeneous job go together, by the first."""
        return self.slurm_id if self.het_job_id is None else str(self.het_job_id)

    @property
    def is_active(self) -> bool:
        """It holds its nodes, or they are still being cleaned up after it."""
        return not _ACTIVE_JOB_STATES.isdisjoint(self.states)

    @property
    def is_running(self) -> bool:
        """It runs; COMPLETING is not running."""
        return "RUNNING" in self.states and "COMPLETING" not in self.states

    @property
    def is_pending(self) -> bool:
        """It waits in the queue (a requeued job may be pending and still completing its last run)."""
        return "PENDING" in self.states

    @property
    def has_failed(self) -> bool:
        """It ended by itself or with its node, not by its user, a limit or a preemption."""
        return not _FAILED_JOB_STATES.isdisjoint(self.states)

    @property
    def has_succeeded(self) -> bool:
        """It ended with exit code zero."""
        return "COMPLETED" in self.states


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One EC2 instance. `node` is the Slurm node name that its tag `nodewatch:node` gives it, empty without the tag."""

    instance_id: str
    state: str
    private_ip: str = ""
    node: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_alive(self) -> bool:
        """It runs or is about to."""
        return self.state in ("pending", "running")


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentView:
    """The last word of one node's agent."""

    node: str
    heard_at: float
    boot_id: str
    instance_id: str
    verdict: Verdict | None
    """None until the agent has given one since the controller started."""
    validating: str = ""
    """The key of the validation that it runs now, empty while it runs none."""
    progress: str = ""
    """How far that is, as an operator reads it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The cluster as read for one tick.

    A part that could not be read whole is absent and its error says why: `slurm_error` means that nodes and jobs are empty
    because nothing is known, not because there are none.
    """

    taken_at: float
    nodes: Mapping[str, SlurmNode] = field(default_factory=dict)
    jobs: Mapping[int, SlurmJob] = field(default_factory=dict)
    instances: Mapping[str, Instance] = field(default_factory=dict)
    agents: Mapping[str, AgentView] = field(default_factory=dict)
    unreachable: frozenset[str] = frozenset()
    """Nodes on which neither the agent's nor slurmd's port could be reached by the controller just now."""
    cloud: Mapping[str, tuple[StandingFinding, ...]] = field(default_factory=dict)
    """By instance id, what EC2's status checks and events say of the machine; empty while that is not known."""
    slurm_error: str | None = None
    ec2_error: str | None = None
    with_reason: tuple[SlurmNode, ...] = field(init=False, repr=False, compare=False, default=())
    """The nodes of which somebody wrote a reason, by name: few of many."""
    spares: tuple[str, ...] = field(init=False, repr=False, compare=False, default=())
    """The nodes that we hold as warm spares, by name."""
    _jobs_on: Callable[[str], tuple[SlurmJob, ...]] | None = field(init=False, repr=False, compare=False, default=None)
    _tagged: Mapping[str, tuple[Instance, ...]] | None = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        told = sorted([node for node in self.nodes.values() if node.reason], key=lambda node: node.name)
        object.__setattr__(self, "with_reason", tuple(told))
        object.__setattr__(self, "spares", tuple(node.name for node in told if node.is_spare))

    def partitions_waited_for(self, *, but: str = "") -> frozenset[str]:
        """Partitions in which a job waits that Slurm may start; jobs of the name `but` are passed over."""
        return frozenset(
            name
            for job in self.jobs.values()
            if job.is_pending and job.priority > 0 and (not but or job.name != but)
            for name in job.partition.split(",")
        )

    def jobs_on(self, node: str) -> tuple[SlurmJob, ...]:
        """The active jobs that hold `node`, by job id."""
        if self._jobs_on is None:
            # Asked for node by node: to look through all jobs each time is quadratic, minutes at 100,000 nodes.
            object.__setattr__(self, "_jobs_on", _jobs_by_node(self.jobs))
        return self._jobs_on(node) if self._jobs_on is not None else ()

    def is_busy(self, node: str) -> bool:
        """Whether a job, or its clean-up, may still be on `node`; a node that Slurm did not list counts as busy."""
        known = self.nodes.get(node)
        return known is None or known.is_busy or bool(self.jobs_on(node))

    def instance_of(self, node: str) -> Instance | None:
        """The live instance that bears `node`: the one its agent names, else the one tagged so.

        None when several are: which of them is the node's cannot be told.
        """
        agent = self.agents.get(node)
        if agent and agent.instance_id in self.instances and self.instances[agent.instance_id].is_alive:
            return self.instances[agent.instance_id]
        if self._tagged is None:
            # Built when first asked for: nearly every agent names its instance.
            found: dict[str, tuple[Instance, ...]] = {}
            for instance in self.instances.values():
                if instance.node and instance.is_alive:
                    found[instance.node] = (*found.get(instance.node, ()), instance)
            object.__setattr__(self, "_tagged", found)
        tagged = (self._tagged or {}).get(node, ())
        return tagged[0] if len(tagged) == 1 else None


def _jobs_by_node(jobs: Mapping[int, SlurmJob]) -> Callable[[str], tuple[SlurmJob, ...]]:
    """The active ones of `jobs`, by id, to be asked for by node."""
    active = [job for job in jobs.values() if not _ACTIVE_JOB_STATES.isdisjoint(job.states)]
    holder: dict[str, SlurmJob] = {}
    for job in active:
        holder.update(dict.fromkeys(job.nodes, job))
    if len(holder) == sum(len(job.nodes) for job in active):
        return lambda node: (holder[node],) if node in holder else ()
    # Nodes that jobs share: a tuple for each node takes several times as long, so only where it is needed.
    found: dict[str, tuple[SlurmJob, ...]] = {}
    for job in sorted(active, key=lambda job: job.job_id):
        for name in dict.fromkeys(job.nodes):
            found[name] = (*found.get(name, ()), job)
    return lambda node: found.get(node, ())
