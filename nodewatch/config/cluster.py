"""What can be set in cluster.toml: the instance groups of a cluster; the text below each field is its documentation."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nodewatch.config.groups import checked_groups, names_of
from nodewatch.config.load import load
from nodewatch.errors import ConfigError
from nodewatch.knowledge.instance_types import TABLE
from nodewatch.policy.cluster_nodes import Block, Shape, nodes_conf
from nodewatch.policy.cluster_plan import Wanted
from nodewatch.policy.rules import Group

DEFAULT = Path("/etc/nodewatch/cluster.toml")

_MEMORY_SHARE = 0.95
"""Of the type's memory, what Slurm may count on: Linux and firmware keep a part, and a node with less than RealMemory is
refused (AWS ParallelCluster's SchedulableMemory has the same default)."""
_OWN_KEYS = frozenset({"partitionname", "nodes"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterGroup:
    """One instance group: machines of one kind in one partition."""

    name: str
    nodes: tuple[str, ...]
    """The names that its machines may bear, as hostlists: `["n[1-16]"]`. The first `count` of them are in use."""
    partition: str
    count: int | None = None
    """How many machines there are, warm spares among them; left out: as many as there are names."""
    instance_type: str = ""
    """EC2 instance type, such as "p5.48xlarge". The launch template decides what is launched; this is what Slurm is told."""
    spares: int = 0
    launch_template: str = ""
    launch_template_version: str = "$Default"
    capacity: tuple[str, ...] = ("launch_template",)
    """Where machines come from, in this order: see docs/ec2.md."""
    subnet_id: str | None = None
    subnets: tuple[str, ...] = ()
    terminate_first: bool = False
    on_replace: str = "terminate"
    quarantine_stops: bool = False
    price_per_hour: float = 0.0
    domains: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    lifecycle_script: str = ""
    """These as in controller.toml's groups: see policy/rules.py."""
    cpus: int = 0
    """CPUs of a node for Slurm; 0: those of the instance type."""
    sockets: int = 0
    cores_per_socket: int = 0
    threads_per_core: int = 0
    """Written where all three are given."""
    memory_mb: int = 0
    """RealMemory; 0: 95 % of the instance type's."""
    gres: str = ""
    """Such as "gpu:h100:8"; empty: `gpu:N` with the instance type's N, nothing for a type without GPUs."""
    features: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("cpus", "sockets", "cores_per_socket", "threads_per_core", "memory_mb"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, as {getattr(self, name)} is")
        if self.count is not None and self.count < 0:
            raise ValueError(f"count must not be negative, as {self.count} is; 0 keeps the group without machines")

    @property
    def shape(self) -> Shape:
        """What Slurm is told of its nodes."""
        row = TABLE.get(self.instance_type)
        keys = {"CPUs": str(self.cpus or (row.vcpus if row else 0))}
        if self.sockets and self.cores_per_socket and self.threads_per_core:
            keys |= {
                "Sockets": str(self.sockets),
                "CoresPerSocket": str(self.cores_per_socket),
                "ThreadsPerCore": str(self.threads_per_core),
            }
        memory = self.memory_mb or int((row.memory_gib if row else 0) * 1024 * _MEMORY_SHARE)
        keys["RealMemory"] = str(memory)
        gres = self.gres or (f"gpu:{row.gpus}" if row and row.gpus else "")
        keys |= {"Gres": gres} if gres else {}
        keys |= {"Feature": ",".join(self.features)} if self.features else {}
        return Shape(keys=keys)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterConfig:
    """The cluster as it should be."""

    cluster: str
    """Written as the tag `nodewatch:cluster` on machines; only machines with it are seen."""
    slurm_conf: Path = Path("/etc/slurm/slurm.conf")
    """The site's file, which is read and never written."""
    nodes_file: Path = Path("nodewatch-nodes.conf")
    """Our file of node and partition lines, beside slurm.conf; the site includes it there."""
    partitions: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Further keys of a partition's line: `[partitions.train]` with `Default = "YES"`, `MaxTime = "7-0"`."""
    groups: tuple[ClusterGroup, ...] = ()
    wanted: tuple[Wanted, ...] = field(init=False, default=())
    """The groups, checked, for policy/cluster_plan.py; made when the file is read."""

    @property
    def nodes_path(self) -> Path:
        """Where our file is."""
        return self.slurm_conf.parent / self.nodes_file

    @property
    def rule_groups(self) -> tuple[Group, ...]:
        """The groups as the controller looks after them: those that have machines."""
        return tuple(each.group for each in self.wanted if each.count)


def load_cluster_config(path: Path) -> ClusterConfig:
    """The configuration in `path`. Raises ConfigError with one sentence that says what to change."""
    config = load(ClusterConfig, path)
    if not config.cluster:
        raise ConfigError(
            f"{path}: cluster is empty: without a name, other clusters' machines would be taken for its own"
        )
    names = [group.name for group in config.groups]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{path}: groups: {name!r} is there twice; give each group a name of its own")
    for name, keys in config.partitions.items():
        if name not in {group.partition for group in config.groups}:
            raise ConfigError(f"{path}: partitions: no group is in {name!r}; take [partitions.{name}] out")
        for key in keys:
            if key.lower() in _OWN_KEYS:
                raise ConfigError(f"{path}: partitions: {name}: {key} follows from the groups; take it out")
    wanted = tuple(_wanted(group, path) for group in config.groups)
    # All names, in use or not: two groups that share one would fight for it when a count is raised.
    checked_groups((dataclasses.replace(each.group, nodes=each.pool, spares=0, domains={}) for each in wanted), path)
    try:
        blocks = [Block(nodes=w.pool, partition=w.group.partition, shape=w.shape) for w in wanted]
        nodes_conf(blocks, config.partitions, theirs=frozenset())
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error
    object.__setattr__(config, "wanted", wanted)
    return config


def _wanted(group: ClusterGroup, path: Path) -> Wanted:
    pool = names_of(group.name, group.nodes, path)
    where = f"{path}: groups: {group.name!r}"
    if any(set(name) & set("*?[") for name in pool):
        raise ConfigError(f'{where}: nodes with a pattern cannot be made; give a hostlist such as ["n[1-4]"]')
    count = len(pool) if group.count is None else group.count
    if count > len(pool):
        raise ConfigError(f"{where}: count is {count} and there are {len(pool)} names: lengthen its hostlist")
    shape = group.shape
    for key, missing in (("CPUs", "cpus"), ("RealMemory", "memory_mb")):
        if shape.keys[key] == "0":
            known = (
                f"{group.instance_type!r} is not in the table of instance types"
                if group.instance_type
                else "no instance_type"
            )
            raise ConfigError(f"{where}: {known}: give {missing}")
    shared = {each.name for each in dataclasses.fields(Group) if each.init} & {
        each.name for each in dataclasses.fields(ClusterGroup)
    }
    values = {name: getattr(group, name) for name in shared}
    full = Group(**{**values, "nodes": pool, "spares": 0})
    (checked,) = checked_groups([full], path)
    if not count:
        if group.spares:
            raise ConfigError(f"{where}: it has no machines and wants {group.spares} as spares; set spares to 0")
        return Wanted(group=dataclasses.replace(checked, nodes=()), pool=pool, count=0, shape=shape)
    used = frozenset(pool[:count])
    domains = {name: tuple(n for n in nodes if n in used) for name, nodes in checked.domains.items()}
    trimmed = dataclasses.replace(
        full, nodes=pool[:count], spares=group.spares, domains={name: nodes for name, nodes in domains.items() if nodes}
    )
    (checked,) = checked_groups([trimmed], path)
    return Wanted(group=checked, pool=pool, count=count, shape=shape)
