"""From the groups that a site wants and what there is, to the steps that make it so. Pure.

Whose a node is: ours are those that stand in our file of node lines, those in a group's list of names, and machines that an
apply launched. Nodes that the site's own lines define are never launched, drained, ended or written.

The order of the steps is that of a plan that may be cut off anywhere: machines are asked for first, so that a refusal leaves
no line of a node that is not there; a machine is ended only after Slurm has had its node drained and empty, in a look that
came after the drain; lines come last. What is left undone is found again by looking.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from nodewatch.model.cluster import Instance, SlurmJob, SlurmNode
from nodewatch.policy.cluster_nodes import Block, Lines, Shape, nodes_conf, old_blocks
from nodewatch.policy.rules import Group

LEAVING = "nodewatch: cluster: taken out by cluster.toml"
"""The reason on a node whose machine is to go. It starts as all of ours do, so the controller leaves it alone."""

KEY_PREFIX = "cluster:"
"""Keys of launches by an apply begin so, and with them the tag `nodewatch:action` of its machines."""

_ENDED = frozenset({"shutting-down", "terminated"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One group of cluster.toml: the first `count` of `pool` are wanted."""

    group: Group
    pool: tuple[str, ...]
    count: int
    shape: Shape

    @property
    def nodes(self) -> tuple[str, ...]:
        """The names that are wanted."""
        return self.pool[: self.count]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What there is, read whole."""

    nodes: Mapping[str, SlurmNode] = field(default_factory=dict)
    jobs: Mapping[int, SlurmJob] = field(default_factory=dict)
    instances: Mapping[str, Instance] = field(default_factory=dict)
    text: str = ""
    """Our file as it is now, empty when there is none."""
    ours: frozenset[str] = frozenset()
    """The nodes that it defines."""
    theirs: Lines = field(default_factory=Lines)
    """What the site's own files define."""
    loaded: str = ""
    """The digest of the text that slurmctld took last."""
    repaired: frozenset[str] = frozenset()
    """Nodes with an open case of the controller."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Nodes for which EC2 had nothing during this apply, with its words."""

    def machines_of(self, node: str) -> list[Instance]:
        """The instances that bear `node` and have not ended."""
        return [i for _, i in sorted(self.instances.items()) if i.node == node and i.state not in _ENDED]

    def jobs_on(self, node: str) -> list[int]:
        """The active jobs that hold `node`."""
        return [number for number, job in sorted(self.jobs.items()) if job.is_active and node in job.nodes]

    def is_busy(self, node: str) -> bool:
        """Whether a job, or its clean-up, may be on `node`."""
        return bool(self.jobs_on(node)) or (node in self.nodes and self.nodes[node].is_busy)


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchNode:
    """Have a machine for a node."""

    node: str
    group: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainNode:
    """Let Slurm start nothing more on a node that is to go."""

    node: str
    reason: str = LEAVING


@dataclass(frozen=True, slots=True, kw_only=True)
class DownNode:
    """With --force: have Slurm end, or requeue, what runs on a node that is to go."""

    node: str
    jobs: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepNode:
    """A node that was to go is wanted again, or has come up after Slurm had given it up."""

    node: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EndMachine:
    """Terminate the machine of an empty node."""

    node: str
    instance_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteLines:
    """Put our file of node and partition lines in its place."""

    text: str
    added: tuple[str, ...]
    removed: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconfigure:
    """Have slurmctld and the slurmds read the lines."""

    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PointNode:
    """Tell slurmctld the address of a node's machine."""

    node: str
    address: str


Step = LaunchNode | DrainNode | DownNode | KeepNode | EndMachine | WriteLines | Reconfigure | PointNode


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What is not done now, and why. `waits` says whether time alone may change it."""

    node: str
    why: str
    waits: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterPlan:
    """Steps in their order, what is held back, and what stands against any step at all."""

    steps: tuple[Step, ...] = ()
    held: tuple[Held, ...] = ()
    problems: tuple[str, ...] = ()


def digest_of(text: str) -> str:
    """What `Seen.loaded` is compared with."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def plan(
    groups: Sequence[Wanted],
    seen: Seen,
    *,
    partitions: Mapping[str, Mapping[str, str]] | None = None,
    force: bool = False,
) -> ClusterPlan:
    """The steps from `seen` to `groups`; with `problems` there are none. Planned again after they were done: nothing."""
    problems = list(_problems(groups, seen))
    if problems:
        return ClusterPlan(problems=tuple(problems))
    wanted = {name: each for each in groups for name in each.nodes}
    steps: list[Step] = []
    held: list[Held] = []
    lined = {name for name in wanted if name not in seen.theirs.nodes}
    for name, each in wanted.items():
        if name in seen.theirs.nodes:
            continue
        launch, why = _launch(name, each, seen)
        steps += [LaunchNode(node=name, group=each.group.name)] if launch else []
        held += [why] if why else []
        if why and name not in seen.ours and not seen.machines_of(name):
            lined.discard(name)
        steps += _kept(name, seen)
    leaving = sorted(_owned(groups, seen) - set(wanted) - seen.theirs.nodes)
    for name in leaving:
        more, why = _leave(name, seen, force=force)
        steps += more
        held += [why] if why else []
        if not _is_gone(more, why) and name in seen.ours:
            lined.add(name)
    text = _text(groups, lined, seen, partitions or {})
    steps += _lines(text, lined, seen)
    steps += _points(wanted, seen)
    return ClusterPlan(steps=tuple(steps), held=tuple(held))


def _problems(groups: Sequence[Wanted], seen: Seen) -> Iterator[str]:
    for each in groups:
        partition = each.group.partition
        nodes = seen.theirs.partitions.get(partition)
        missing = [name for name in each.nodes if name not in seen.theirs.nodes]
        if nodes is not None and missing and nodes.upper() != "ALL":
            yield (
                f"partition {partition} stands in the site's slurm.conf, where it cannot get {missing[0]} of group "
                f"{each.group.name}: give it Nodes=ALL there, or take its line out, so that nodewatch writes it"
            )


def _owned(groups: Sequence[Wanted], seen: Seen) -> set[str]:
    pools = {name for each in groups for name in each.pool}
    mine = {
        i.node
        for i in seen.instances.values()
        if i.node and i.state not in _ENDED and (i.node in pools or _is_by_apply(i))
    }
    return mine | set(seen.ours)


def _is_by_apply(instance: Instance) -> bool:
    return instance.tags.get("nodewatch:action", "").startswith(KEY_PREFIX)


def _launch(name: str, wanted: Wanted, seen: Seen) -> tuple[bool, Held | None]:
    """Whether a machine is to be asked for, and what is held back instead."""
    if seen.machines_of(name):
        return False, None
    node = seen.nodes.get(name)
    if name in seen.repaired:
        return False, Held(node=name, why="the controller repairs it", waits=True)
    if node is not None and node.slurmd_started_at > 0 and not _is_leaving(node):
        # It was in service: whether its machine is being replaced is the controller's to know, and two would be launched.
        return False, Held(node=name, why=f"its machine is gone: `nodewatch replace {name}` has it replaced")
    if name in seen.refused:
        return False, Held(node=name, why=f"EC2 gives no machine: {seen.refused[name]}")
    if not wanted.group.launch_template:
        return False, Held(node=name, why=f"group {wanted.group.name} has no launch_template to make its machine from")
    if all(word.startswith("asg:") for word in wanted.group.capacity):
        return False, Held(node=name, why=f"{wanted.group.capacity[0]} makes its machines: raise its desired capacity")
    return True, None


def _kept(name: str, seen: Seen) -> list[Step]:
    node = seen.nodes.get(name)
    if node is None or name in seen.repaired:
        return []
    # Once it has a machine: that of before may have been ended by an apply that was cut off.
    if _is_leaving(node) and seen.machines_of(name):
        return [KeepNode(node=name, why="wanted again")]
    if node.is_down and node.is_responding and node.reason.startswith("Not responding") and not node.is_out:
        return [KeepNode(node=name, why="its slurmd has registered since Slurm gave it up")]
    return []


def _leave(name: str, seen: Seen, *, force: bool) -> tuple[list[Step], Held | None]:
    """The steps by which a node goes, and what is held back."""
    node = seen.nodes.get(name)
    end: list[Step] = [EndMachine(node=name, instance_id=i.instance_id) for i in seen.machines_of(name)]
    if name in seen.repaired and not force:
        return [], Held(node=name, why="the controller repairs it: it goes when the case is closed", waits=True)
    if node is None:
        # Slurm does not know it, so no job can be there.
        return end, None
    if node.is_foreign and not force:
        said = f" ({node.reason})" if node.reason else ""
        return [], Held(node=name, why=f"somebody else took it out of service{said}: resume it first, or --force")
    if node.is_in_maintenance and not force:
        return [], Held(node=name, why="it is reserved or powered away: free it first, or --force")
    if seen.is_busy(name):
        jobs = tuple(seen.jobs_on(name))
        if force and not node.is_down:
            return [DownNode(node=name, jobs=jobs)], Held(node=name, why="Slurm ends what runs there", waits=True)
        drain: list[Step] = [] if _is_leaving(node) else [DrainNode(node=name)]
        what = f"job {', '.join(map(str, jobs))} runs there" if jobs else "the last job is being cleaned up"
        return drain, Held(node=name, why=f"{what}: its machine goes afterwards", waits=True)
    if not _is_leaving(node):
        # A job may begin between our look and the drain: the machine goes after the next look.
        return [DrainNode(node=name)], Held(
            node=name, why="drained first: its machine goes when it is seen empty", waits=True
        )
    return end, None


def _is_leaving(node: SlurmNode) -> bool:
    return node.is_out and node.reason.startswith(LEAVING)


def _is_gone(steps: Sequence[Step], why: Held | None) -> bool:
    return why is None and all(isinstance(step, EndMachine) for step in steps)


def _text(groups: Sequence[Wanted], lined: set[str], seen: Seen, partitions: Mapping[str, Mapping[str, str]]) -> str:
    """Our file with the nodes `lined`. Nodes that leave and whose group is gone keep the lines that they have."""
    blocks = []
    placed: set[str] = set()
    for each in groups:
        nodes = tuple(name for name in each.pool if name in lined)
        foreign = tuple(name for name in each.nodes if name in seen.theirs.nodes)
        placed |= set(nodes)
        blocks.append(Block(nodes=nodes, partition=each.group.partition, shape=each.shape, foreign=foreign))
    rest = lined - placed
    if rest:
        blocks += old_blocks(seen.text, rest)
    return nodes_conf(blocks, partitions, theirs=frozenset(seen.theirs.partitions))


def _lines(text: str, lined: set[str], seen: Seen) -> list[Step]:
    steps: list[Step] = []
    if text != seen.text:
        added, removed = sorted(lined - seen.ours), sorted(seen.ours - lined)
        steps.append(WriteLines(text=text, added=tuple(added), removed=tuple(removed)))
    slurm_has = set(seen.nodes)
    if steps or seen.loaded != digest_of(text) or not lined <= slurm_has:
        steps.append(Reconfigure(digest=digest_of(text)))
    return steps


def _points(wanted: Mapping[str, Wanted], seen: Seen) -> list[Step]:
    steps: list[Step] = []
    for name in wanted:
        machines = [i for i in seen.machines_of(name) if i.is_alive]
        node = seen.nodes.get(name)
        if name in seen.theirs.nodes or node is None or len(machines) != 1 or name in seen.repaired:
            continue
        if machines[0].private_ip and node.address != machines[0].private_ip:
            steps.append(PointNode(node=name, address=machines[0].private_ip))
    return steps
