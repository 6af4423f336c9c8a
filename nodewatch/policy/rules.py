"""The site's policy: limits, waits and preferences. Durations are seconds."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass, field

from nodewatch.model.ledger import Rung

MODES = ("observe", "act")
ON_REPLACE = ("terminate", "quarantine")
MOST_REPLACEMENTS = 10_000
"""What `replacements_per_day` may be at most: the ledger remembers so many launches and one more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Nodes of one kind that can stand in for each other."""

    name: str
    nodes: tuple[str, ...]
    """Slurm node names or patterns with `*`; hostlists are expanded when the configuration is read."""
    partition: str
    spares: int = 0
    """How many healthy nodes to keep out of service so that one can stand in at once."""
    launch_template: str = ""
    """EC2 launch template (name) of a replacement; without one, a broken node waits for a human."""
    launch_template_version: str = "$Default"
    """Version of the launch template: a number, `$Default` or `$Latest`."""
    capacity: tuple[str, ...] = ("launch_template",)
    """Where machines come from, in this order: see docs/ec2.md."""
    subnet_id: str | None = None
    subnets: tuple[str, ...] = ()
    """Further subnets, in other zones, for when there is no capacity in `subnet_id`."""
    terminate_first: bool = False
    """The reservations are fully used: their slot returns only when the broken machine is gone. Capacity blocks always are."""
    on_replace: str = "terminate"
    """What becomes of a replaced machine: `terminate`, or `quarantine` (kept, tagged, without our name)."""
    quarantine_stops: bool = False
    """A machine in quarantine is stopped. A stopped one gives its host back and may start on another."""
    lifecycle_script: str = ""
    """Where the script is that makes a fresh machine a node, such as "s3://site/on-create.sh": written as the tag
    `nodewatch:lifecycle-script` on machines that are launched, for the launch template's user data to fetch."""
    instance_type: str = ""
    """EC2 instance type, such as "p5.48xlarge": what pair tests of these nodes are held against."""
    price_per_hour: float = 0.0
    """What one machine costs an hour, in any currency: limits on replacements then say what they save. 0: not said."""
    domains: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Failure domains, such as `{ spine1 = ["n[1-64]"] }`: switches by their name in topology.conf, or placement groups."""
    _names: frozenset[str] = field(init=False, repr=False, compare=False, default=frozenset())
    _patterns: tuple[str, ...] = field(init=False, repr=False, compare=False, default=())
    _domain_by_name: Mapping[str, str] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        # Asked for every node in every tick: a scan of ten thousand names each time would take minutes.
        object.__setattr__(self, "_names", frozenset(self.nodes))
        object.__setattr__(self, "_patterns", tuple(name for name in self.nodes if set(name) & set("*?[")))
        named = {node: domain for domain, nodes in self.domains.items() for node in nodes}
        object.__setattr__(self, "_domain_by_name", named)
        if self.price_per_hour < 0:
            raise ValueError(
                f"price_per_hour must not be negative, as {self.price_per_hour} is; 0 says nothing of costs"
            )

        if self.on_replace not in ON_REPLACE:
            raise ValueError(f"on_replace must be one of {', '.join(ON_REPLACE)}, not {self.on_replace!r}")

    @property
    def has_ec2(self) -> bool:
        """Whether machines of the group can be replaced."""
        return bool(self.launch_template) or any(word.startswith("asg:") for word in self.capacity)

    @property
    def all_subnets(self) -> tuple[str, ...]:
        """The subnets in the order in which they are tried."""
        first = (self.subnet_id,) if self.subnet_id else ()
        return tuple(dict.fromkeys((*first, *self.subnets)))

    def holds(self, node: str) -> bool:
        """Whether `node` is of this group."""
        return node in self._names or any(fnmatch.fnmatchcase(node, pattern) for pattern in self._patterns)

    def domain_of(self, node: str) -> str | None:
        """The failure domain of `node`, None where none is configured."""
        return self._domain_by_name.get(node)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the planner may do. The defaults are those of a first install: watch, journal what would be done, do nothing."""

    mode: str = "observe"
    paused: bool = False
    """Admit no new repair; those under way go on."""
    max_out: int = 2
    """Nodes of one group out of service at once because of us, warm spares not counted."""
    max_out_share: float = 0.1
    """The same as a share of the group; at least one node is always allowed. The smaller of the two limits holds."""
    max_out_per_domain: int = 0
    """Nodes of one failure domain of a group (`domains`) out at once because of us; 0: only the group's limits hold."""
    min_healthy: Mapping[str, float] = field(default_factory=dict)
    """By partition (`"*"`: every other one), what must stay in service: a share below 1, a number of nodes from 1 on."""
    degraded_wait_s: float = 0.0
    """A drained node waits so long for its jobs to end; then marked and requeueable jobs are started elsewhere. 0: for ever."""
    storm_nodes: int = 3
    """The same fault family on so many nodes within `storm_window_s` is the fabric, the file system or the check."""
    storm_window_s: float = 300.0
    storm_cooldown_s: float = 600.0
    storm_hold_s: float = 86400.0
    """The nodes of a storm are held so long after its last report while `storm_nodes` of them still show the fault."""
    shared_families: tuple[str, ...] = ("filesystem", "fabric")
    """Faults of things that nodes share: one node's report waits `shared_settle_s` for the others'."""
    shared_settle_s: float = 180.0
    """A Lustre client may notice only when it is evicted, after 1.5 x obd_timeout = 150 s (field notes 10); 30 s are ours."""
    settle_s: float = 75.0
    """Any other fault that is not fatal waits so long: its jobs go on meanwhile. The slowest of the checks that always run look
    each 60 s, so by then every node has shown what came over all of them; 15 s for their deadlines are ours."""
    lost_settle_s: float = 3.0
    """A lost node waits so long for others: agents report each 2 s, so a cut network shows as a storm by then."""
    replacements_per_hour: int = 10
    replacements_per_day: int = 100
    """At most 10,000: so many launches are remembered."""
    failed_replacements_limit: int = 3
    """So many replacements in a row that did not come up healthy stop all further ones (protected mode)."""
    attempts: int = 3
    """Tries of one rung before the next."""
    launch_timeout_s: float = 1200.0
    """From the launch until the new machine's agent is heard. HyperPod's replacements take 20 to 30 min (field notes 6.3)."""
    console_every_s: float = 300.0
    """The console of a machine that boots is read so often, for the word of its lifecycle script; 0: only when it is given up.
    Ours: of a launch that fails at once a quarter of `launch_timeout_s` is waited for."""
    register_timeout_s: float = 600.0
    """From the end of the deep checks until slurmd has registered. ParallelCluster gives 180 s after slurmd's start (field
    notes 8); ours is longer, since slurmctld may be busy."""
    validate_timeout_s: float = 900.0
    """Without a sign of life of the deep checks for so long, the try has failed."""
    check_timeout_s: float = 14400.0
    """The deep checks of a machine take at most so long. DCGM's longest level takes 45 to 135 min (field notes 3.5)."""
    sweep_every_s: float = 604800.0
    """Idle nodes run the deep checks so often, and at their first boot; 0: never."""
    sweep_at_once: int = 2
    """So many nodes at a time."""
    reset_timeout_s: float = 600.0
    """An agent that has not answered a GPU reset by then cannot do it, and the machine is rebooted."""
    reboot_timeout_s: float = 900.0
    healthy_delay_s: float = 60.0
    """A repaired node counts as cured after so long without the fault."""
    agent_silence_s: float = 15.0
    """An agent not heard for so long, on a machine that answers on no port either, is a lost node."""
    relapse_window_s: float = 86400.0
    """The same fault family on the same node within this time enters one rung higher."""
    lemon_cases: int = 3
    """Hardware (instance, GPU UUID, serial number) with so many repaired cases goes straight to replace; 0: never."""
    lemon_window_s: float = 2592000.0
    """Cases opened within this time count. 30 days."""
    requeue_limit: int = 3
    """Restarts of a job marked --auto-resume without a number."""
    program_retries: int = 0
    """How often a job is started again although its program failed by itself; not when it got no further than before."""
    attribution_window_s: float = 120.0
    """A fatal finding at most so long before a job's end is taken for its cause."""
    attribution_wait_s: float = 15.0
    """How long to wait after a job's failure for the finding that explains it."""
    inside_wait_s: float = 60.0
    """A job with nodes to spare has so long to show that it starts again on the others of its allocation. Ours: a step that
    hangs is ended in seconds, srun starts within one, and agents tell of ranks every 5 s."""
    inside_start_s: float = 600.0
    """And so long to its first step, once its ranks were seen to start: loading a large checkpoint takes minutes."""
    retry_s: float = 2.0
    """First wait before a failed action is tried again; doubles up to `retry_max_s`."""
    retry_max_s: float = 60.0
    capacity_retry_s: float = 60.0
    """First wait after EC2 had no capacity; doubles up to `capacity_retry_max_s`."""
    capacity_retry_max_s: float = 600.0
    ec2_settle_s: float = 300.0
    """A machine that was launched may be missing from EC2's list for so long before it is taken for gone: EC2 is eventually
    consistent. EC2's documents give no bound; ours."""
    evidence_bucket: str = ""
    """S3 bucket for what is known of a machine before it is ended, empty: it stands in the journal alone."""
    evidence_wait_s: float = 120.0
    """An S3 that fails holds a repair up for so long."""
    report_to_aws: bool = False
    """Tell EC2 (ReportInstanceStatus) of machines that are replaced for a confirmed hardware fault."""
    same_hardware_fails: bool = False
    """A replacement with a GPU of the machine that it replaces counts as a failed try. Otherwise the case only says so."""
    event_lead_s: float = 14400.0
    """A node whose machine EC2 retires, stops or reboots is drained so long before that. Ours: most jobs end within it."""
    event_save_s: float = 600.0
    """Jobs that still run there so long before that are put back into the queue."""
    first_rung: Mapping[str, str] = field(
        # A guest's reboot does not power-cycle the board that a GPU fell off: on EC2 another machine is the
        # smallest cure (field notes 6.1: HyperPod's auto-resume always replaces).
        default_factory=lambda: {"gpu.lost": "replace", "gpu.xid.79": "replace", "node.lost": "replace"}
    )
    """Rung at which the repair of a fault starts, by fault name; overrides the finding's own remedy."""
    groups: tuple[Group, ...] = ()
    _group_by_name: Mapping[str, Group] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        named = {node: group for group in reversed(self.groups) for node in group.nodes}
        object.__setattr__(self, "_group_by_name", named)
        if self.mode not in MODES:
            raise ValueError(f"mode must be one of {', '.join(MODES)}, not {self.mode!r}")
        if self.max_out < 0 or not 0 <= self.max_out_share <= 1:
            raise ValueError("max_out must not be negative and max_out_share must lie between 0 and 1")
        words = {rung.word for rung in Rung}
        for fault, rung in self.first_rung.items():
            if rung not in words:
                raise ValueError(f"first_rung of {fault!r} must be one of {', '.join(sorted(words))}, not {rung!r}")
        for spec in dataclasses.fields(self):
            value = getattr(self, spec.name)
            if isinstance(value, float) and spec.name.endswith("_s") and not value >= 0:
                raise ValueError(f"{spec.name} is a time in seconds and must not be negative, as {value!r} is")
        for partition, wanted in self.min_healthy.items():
            if wanted < 0 or (wanted > 1 and wanted != int(wanted)):
                raise ValueError(
                    f"min_healthy of {partition!r} is {wanted}: use a share below 1, such as 0.9, or a whole number of nodes"
                )
        if self.max_out_per_domain < 0:
            raise ValueError("max_out_per_domain must not be negative; 0 turns it off")
        if not 0 <= self.replacements_per_day <= MOST_REPLACEMENTS:
            raise ValueError(
                f"replacements_per_day is {self.replacements_per_day}: use a number from 0 to {MOST_REPLACEMENTS}"
            )
        if self.lemon_cases < 0:
            raise ValueError(f"lemon_cases must not be negative, as {self.lemon_cases} is; 0 turns it off")
        for name in ("storm_nodes", "attempts", "failed_replacements_limit"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")

    def group_of(self, node: str) -> Group | None:
        """The first group that holds `node`, None for a node that is not ours to repair."""
        named = self._group_by_name.get(node)
        # Configurations name a node once; only one that no group names is looked for among the patterns.
        return named if named is not None else next((group for group in self.groups if group.holds(node)), None)
