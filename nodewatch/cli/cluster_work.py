"""Look at the cluster, plan, carry out, look again, until it is as cluster.toml says or nothing more can be done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nodewatch.cli.ask import ask
from nodewatch.clients.replace_file import replace_file
from nodewatch.clients.slurm_conf import read_slurm_conf
from nodewatch.config.cluster import ClusterConfig
from nodewatch.effects.cluster import Hands, Record, carry_out
from nodewatch.effects.perform import Ec2Client, SlurmClient
from nodewatch.errors import CapacityError, ChannelError, ConfigError, SlurmError
from nodewatch.model.cluster import Instance
from nodewatch.model.hostlist import fold
from nodewatch.policy import cluster_plan as to
from nodewatch.policy.cluster_nodes import HEADER, read_lines

_LOOK_EVERY_S = 5.0
_UNSEEN_S = 300.0
"""A machine that was launched and is not listed is taken to be there for so long: EC2's list lags behind its answers."""
_MOST_ROUNDS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One cluster with what speaks to it."""

    config: ClusterConfig
    slurm: SlurmClient
    ec2: Ec2Client
    record: Record
    socket: Path

    def ensure_file(self) -> None:
        """Our file is there, without a line if it is new: an Include of a missing file ends every command of Slurm."""
        if not self.config.nodes_path.exists():
            replace_file(self.config.nodes_path, HEADER)

    def look(self, refused: Mapping[str, str] | None = None) -> to.Seen:
        """What there is, whole. Raises SlurmError, Ec2Error, or ConfigError where our file is not included."""
        config = self.config
        ours, others = config.nodes_path.resolve(), []
        files = [path.resolve() for path in read_slurm_conf(config.slurm_conf).files]
        if ours not in files:
            raise ConfigError(
                f"{config.slurm_conf} does not include our file: add the line `include {config.nodes_file}` to it, once "
                f"{config.nodes_path} is there (`nodewatch cluster apply` makes it)"
            )
        try:
            others = [path.read_text(encoding="utf-8", errors="replace") for path in files if path != ours]
            text = ours.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise SlurmError(f"the files of {config.slurm_conf} cannot be read: {error}") from error
        instances = dict(self.ec2.instances())
        instances |= self._unseen(instances)
        return to.Seen(
            nodes=self.slurm.nodes(),
            jobs=self.slurm.jobs(),
            instances=instances,
            text=text,
            ours=read_lines([text]).nodes,
            theirs=read_lines(others),
            loaded=self.record.loaded(),
            repaired=self._repaired(),
            refused=refused or {},
        )

    def plan(self, groups: Sequence[to.Wanted], seen: to.Seen, *, force: bool) -> to.ClusterPlan:
        """See policy/cluster_plan.py. Raises ConfigError for what stands against any step."""
        found = to.plan(groups, seen, partitions=self.config.partitions, force=force)
        if found.problems:
            raise ConfigError(found.problems[0])
        return found

    def hands(self, groups: Iterable[to.Wanted], seen: to.Seen) -> Hands:
        """What the steps are done with."""
        return Hands(
            slurm=self.slurm,
            ec2=self.ec2,
            record=self.record,
            groups={each.group.name: each.group for each in groups},
            slurm_conf=self.config.slurm_conf,
            nodes_path=self.config.nodes_path,
            theirs=seen.theirs,
        )

    def _repaired(self) -> frozenset[str]:
        """Nodes with an open case; none when no controller runs, for then nothing is repaired."""
        try:
            answer = ask(self.socket, {"ask": "status"})
        except ChannelError:
            return frozenset()
        return frozenset(node["node"] for node in answer.get("nodes", ()) if node.get("cases"))

    def _unseen(self, listed: Mapping[str, Instance]) -> dict[str, Instance]:
        lines = self.record.lines()
        ended = {line.get("instance_id") for line in lines if line.get("kind") in ("ending", "ended")}
        return {
            line["instance_id"]: Instance(
                instance_id=line["instance_id"],
                state="pending",
                node=line["node"],
                tags={"nodewatch:action": line.get("key", "")},
            )
            for line in lines
            if line.get("kind") == "launched"
            and time.time() - float(line["at"]) < _UNSEEN_S
            and line["instance_id"] not in listed
            and line["instance_id"] not in ended
        }


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What an apply came to."""

    done: list[str] = field(default_factory=list)
    held: tuple[to.Held, ...] = ()
    waiting: tuple[str, ...] = ()
    """Nodes that have a machine and are not up."""

    @property
    def is_complete(self) -> bool:
        """The cluster is as it was wanted."""
        return not self.held and not self.waiting


def work(
    site: Site, groups: Sequence[to.Wanted], *, force: bool, wait_s: float, tell: Callable[[str], None]
) -> Outcome:
    """Carry out plan after plan. Stops when nothing is left, or when what is left needs more than `wait_s` or somebody."""
    outcome = Outcome()
    refused: dict[str, str] = {}
    end = time.monotonic() + wait_s
    told = ""
    for _ in range(_MOST_ROUNDS):
        seen = site.look(refused)
        found = site.plan(groups, seen, force=force)
        outcome.held, outcome.waiting = found.held, tuple(booting(groups, seen))
        if found.steps:
            _round(found.steps, site.hands(groups, seen), refused, outcome, tell)
            continue
        left = [item for item in found.held if item.waits]
        if (not left and not outcome.waiting) or time.monotonic() >= end:
            return outcome
        line = progress(groups, outcome)
        if line != told:
            tell(line)
            told = line
        time.sleep(min(_LOOK_EVERY_S, max(0.0, end - time.monotonic())))
    raise SlurmError(
        "the same steps are to be done again and again: run `nodewatch cluster describe`, and tell us of it"
    )


def _round(
    steps: Sequence[to.Step], hands: Hands, refused: dict[str, str], outcome: Outcome, tell: Callable[[str], None]
) -> None:
    was_refused = False
    for step in steps:
        if was_refused and isinstance(step, (to.WriteLines, to.Reconfigure)):
            # They hold a node that has got no machine: the next plan's lines do not.
            continue
        try:
            said = carry_out(step, hands)
        except CapacityError as error:
            if not isinstance(step, to.LaunchNode):
                raise
            refused[step.node] = str(error)
            was_refused = True
            said = f"no machine for {step.node}: {error}"
        outcome.done.append(said)
        tell(said)


def booting(groups: Iterable[to.Wanted], seen: to.Seen) -> list[str]:
    """The wanted nodes of ours that have a machine and that Slurm does not hear."""
    names = [name for each in groups for name in each.nodes if name not in seen.theirs.nodes]
    return [name for name in names if seen.machines_of(name) and not is_up(name, seen)]


def is_up(name: str, seen: to.Seen) -> bool:
    """Whether slurmd of the node has registered and answers."""
    node = seen.nodes.get(name)
    return node is not None and node.is_responding and not node.is_down and "UNKNOWN" not in node.states


def progress(groups: Iterable[to.Wanted], outcome: Outcome) -> str:
    """One line of what is waited for."""
    wanted = [name for each in groups for name in each.nodes]
    parts = [f"{len(wanted) - len(outcome.waiting)} of {len(wanted)} nodes are there"]
    if outcome.waiting:
        parts.append(f"{fold(outcome.waiting)} to boot and register")
    parts += [f"{item.node}: {item.why}" for item in outcome.held if item.waits]
    return "; ".join(parts)


def sentence(step: to.Step, config: ClusterConfig) -> str:
    """A step as the plan shows it."""
    match step:
        case to.LaunchNode(node=node, group=group):
            known = next((each for each in config.groups if each.name == group), None)
            kind = f" {known.instance_type}" if known and known.instance_type else ""
            return f"+ launch a machine for {node} (group {group}{kind})"
        case to.DrainNode(node=node):
            return f"- drain {node}; its machine is ended once it is empty"
        case to.DownNode(node=node, jobs=jobs):
            return f"- END WHAT RUNS on {node}: job {', '.join(map(str, jobs)) or 'unknown'}"
        case to.KeepNode(node=node, why=why):
            return f"+ put {node} back into service ({why})"
        case to.EndMachine(node=node, instance_id=instance_id):
            return f"- terminate {instance_id} of {node}"
        case to.WriteLines(added=added, removed=removed):
            changes = [f"with {fold(added)}"] if added else []
            changes += [f"without {fold(removed)}"] if removed else []
            return f"~ write {config.nodes_path} {' and '.join(changes)}".rstrip()
        case to.Reconfigure():
            return "~ scontrol reconfigure"
        case to.PointNode(node=node, address=address):
            return f"~ tell Slurm that {node} is at {address}"


def as_data(step: to.Step) -> dict[str, Any]:
    """A step for --json."""
    kind = {
        to.LaunchNode: "launch",
        to.DrainNode: "drain",
        to.DownNode: "down",
        to.KeepNode: "resume",
        to.EndMachine: "terminate",
        to.WriteLines: "write",
        to.Reconfigure: "reconfigure",
        to.PointNode: "address",
    }[type(step)]
    fields = ("node", "group", "instance_id", "address", "added", "removed", "jobs", "why", "reason", "text")
    return {"step": kind, **{name: getattr(step, name) for name in fields if hasattr(step, name)}}


def without_machines(groups: Iterable[to.Wanted]) -> list[to.Wanted]:
    """The groups with a count of nothing, for `delete`."""
    return [replace(each, count=0) for each in groups]


def group_data(each: to.Wanted, seen: to.Seen) -> dict[str, Any]:
    """A group for `describe`."""
    nodes = [seen.nodes[name] for name in each.nodes if name in seen.nodes]
    return {
        "group": each.group.name,
        "instance_type": each.group.instance_type,
        "partition": each.group.partition,
        "count": each.count,
        "names": len(each.pool),
        "machines": sum(1 for name in each.pool if seen.machines_of(name)),
        "up": sum(1 for name in each.nodes if is_up(name, seen)),
        "spares": sum(1 for node in nodes if node.is_spare),
        "spares_wanted": each.group.spares,
        "out": sum(1 for node in nodes if (node.is_out or node.is_down) and not node.is_spare),
        "lifecycle_script": each.group.lifecycle_script,
    }


def node_data(name: str, each: to.Wanted, seen: to.Seen) -> dict[str, Any]:
    """A node for `describe`."""
    machines, node = seen.machines_of(name), seen.nodes.get(name)
    return {
        "node": name,
        "group": each.group.name,
        "instance": ",".join(i.instance_id for i in machines),
        "ec2": ",".join(i.state for i in machines),
        "slurm": "+".join(sorted(node.states)).lower() if node else "",
        "address": ",".join(i.private_ip for i in machines),
        "lines": "site" if name in seen.theirs.nodes else "ours" if name in seen.ours else "",
    }
