"""The site's policy: limits, waits and preferences. Durations are seconds."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass, field

from nodewatch.model.ledger import Rung

MODES = ("observe", "act")


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
    subnet_id: str | None = None
    instance_type: str = ""
    """EC2 instance type, such as "p5.48xlarge": what pair tests of these nodes are held against."""
    _names: frozenset[str] = field(init=False, repr=False, compare=False, default=frozenset())
    _patterns: tuple[str, ...] = field(init=False, repr=False, compare=False, default=())

    def __post_init__(self) -> None:
        # Asked for every node in every tick: a scan of ten thousand names each time would take minutes.
        object.__setattr__(self, "_names", frozenset(self.nodes))
        object.__setattr__(self, "_patterns", tuple(name for name in self.nodes if set(name) & set("*?[")))

    def holds(self, node: str) -> bool:
        """Whether `node` is of this group."""
        return node in self._names or any(fnmatch.fnmatchcase(node, pattern) for pattern in self._patterns)


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
    storm_nodes: int = 3
    """The same fault family on so many nodes within `storm_window_s` is the fabric, the file system or the check."""
    storm_window_s: float = 300.0
    storm_cooldown_s: float = 600.0
    shared_families: tuple[str, ...] = ("filesystem", "fabric")
    """Faults of things that nodes share: one node's report waits `shared_settle_s` for the others'."""
    shared_settle_s: float = 30.0
    lost_settle_s: float = 3.0
    """A lost node waits so long for others: agents report each 2 s, so a cut network shows as a storm by then."""
    replacements_per_hour: int = 10
    failed_replacements_limit: int = 3
    """So many replacements in a row that did not come up healthy stop all further ones (protected mode)."""
    attempts: int = 3
    """Tries of one rung before the next."""
    launch_timeout_s: float = 1200.0
    """From the launch until the new machine's agent is heard. HyperPod's replacements take 20 to 30 min (field notes 6.3)."""
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
    attribution_window_s: float = 120.0
    """A fatal finding at most so long before a job's end is taken for its cause."""
    attribution_wait_s: float = 15.0
    """How long to wait after a job's failure for the finding that explains it."""
    retry_s: float = 2.0
    """First wait before a failed action is tried again; doubles up to `retry_max_s`."""
    retry_max_s: float = 60.0
    capacity_retry_s: float = 60.0
    """First wait after EC2 had no capacity; doubles up to `capacity_retry_max_s`."""
    capacity_retry_max_s: float = 600.0
    first_rung: Mapping[str, str] = field(
        # A guest's reboot does not power-cycle the board that a GPU fell off: on EC2 another machine is the
        # smallest cure (field notes 6.1: HyperPod's auto-resume always replaces).
        default_factory=lambda: {"gpu.lost": "replace", "gpu.xid.79": "replace", "node.lost": "replace"}
    )
    """Rung at which the repair of a fault starts, by fault name; overrides the finding's own remedy."""
    groups: tuple[Group, ...] = ()

    def __post_init__(self) -> None:
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
        if self.lemon_cases < 0:
            raise ValueError(f"lemon_cases must not be negative, as {self.lemon_cases} is; 0 turns it off")
        for name in ("storm_nodes", "attempts", "failed_replacements_limit"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")

    def group_of(self, node: str) -> Group | None:
        """The first group that holds `node`, None for a node that is not ours to repair."""
        return next((group for group in self.groups if group.holds(node)), None)
