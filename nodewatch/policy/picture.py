"""What the planner saw, small enough for the journal: only what it decides by, and only what changed since the last time.

A picture is a flat table `(kind, name) -> value`. What a decision does not depend on is left out: evidence but for what
identifies hardware and when an event of EC2 begins, the names and users of jobs, tags, and of jobs that wait unmarked all
but the first of each partition.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterable, Mapping
from typing import Any

from nodewatch.model.cluster import AgentView, Instance, SlurmJob, SlurmNode, Snapshot
from nodewatch.model.health import StandingFinding, Verdict
from nodewatch.model.hostlist import expand, fold
from nodewatch.model.ledger import Ledger
from nodewatch.model.plain import from_plain, to_plain
from nodewatch.policy.lost import is_silent
from nodewatch.policy.rules import Rules

Picture = dict[tuple[str, str], Any]
"""Values are plain JSON."""

_OF_NODES = frozenset(
    {"node", "address", "slurmd", "reason_at", "agent", "verdict", "silent", "validating", "unreachable"}
)
_EVIDENCE = ("uuid", "serial", "starts_at")

LEFT_OUT: Mapping[type, frozenset[str]] = {
    # Another for each node: they would keep nodes that change alike from being one line, and have kinds of their own.
    SlurmNode: frozenset({"name", "address", "slurmd_started_at", "reason_at"}),
    SlurmJob: frozenset({"job_id", "name", "user", "comment", "account", "stderr_path"}),
    Instance: frozenset({"instance_id", "tags"}),
    AgentView: frozenset({"node", "heard_at", "verdict", "validating", "progress"}),
}
"""Fields that are not carried, or by a kind of their own; a field that is added later is carried."""


def picture_of(snapshot: Snapshot, ledger: Ledger, rules: Rules, now: float) -> Picture:
    """The picture of `snapshot` as the planner judges it at `now`."""
    picture: Picture = {}
    for name, node in snapshot.nodes.items():
        picture["node", name] = _sparse(node)
        picture["address", name] = node.address
        if node.slurmd_started_at:
            picture["slurmd", name] = node.slurmd_started_at
        if node.reason_at:
            picture["reason_at", name] = node.reason_at
    for job_id, job in snapshot.jobs.items():
        if job.is_active or job_id in ledger.jobs:
            picture["job", str(job_id)] = _sparse(job)
        elif job.is_pending:
            key = ("waiting", job.partition)
            picture[key] = max(job.priority, picture.get(key, 0))
    for instance_id, instance in snapshot.instances.items():
        picture["instance", instance_id] = _sparse(instance)
    for name, view in snapshot.agents.items():
        picture["agent", name] = _sparse(view)
        if view.verdict is not None:
            picture["verdict", name] = _verdict(view.verdict)
        if view.validating:
            picture["validating", name] = view.validating
        if is_silent(view, rules, now):
            picture["silent", name] = view.heard_at
    for instance_id, findings in snapshot.cloud.items():
        picture["cloud", instance_id] = [_standing(to_plain(standing)) for standing in findings]
    for name in snapshot.unreachable:
        picture["unreachable", name] = True
    if snapshot.slurm_error is not None:
        picture["error", "slurm"] = snapshot.slurm_error
    if snapshot.ec2_error is not None:
        picture["error", "ec2"] = snapshot.ec2_error
    return picture


def change(before: Picture | None, after: Picture) -> dict[str, Any]:
    """What makes `after` of `before`, as JSON; all of it when there is no picture before."""
    known = {} if before is None else before
    groups: dict[tuple[str, str], list[str]] = {}
    for key, value in after.items():
        if key not in known or known[key] != value:
            groups.setdefault((key[0], json.dumps(value, sort_keys=True)), []).append(key[1])
    gone: dict[str, list[str]] = {}
    for kind, name in known:
        if (kind, name) not in after:
            gone.setdefault(kind, []).append(name)
    return {
        "full": before is None,
        # Five hundred nodes that a job has just taken are one line.
        "set": [[kind, json.loads(text), _names(kind, names)] for (kind, text), names in groups.items()],
        "gone": [[kind, _names(kind, names)] for kind, names in gone.items()],
    }


def is_nothing(delta: Mapping[str, Any]) -> bool:
    """Whether a change changes nothing."""
    return not (delta["full"] or delta["set"] or delta["gone"])


def changed(before: Picture | None, delta: Mapping[str, Any]) -> Picture | None:
    """The picture after `delta`; None while there has been no full one. Raises KeyError, ValueError or TypeError."""
    if delta["full"]:
        picture: Picture = {}
    elif before is None:
        return None
    else:
        picture = dict(before)
    for kind, value, names in delta["set"]:
        for name in _unfolded(kind, names):
            picture[kind, name] = value
    for kind, names in delta["gone"]:
        for name in _unfolded(kind, names):
            picture.pop((kind, name), None)
    return picture


def snapshot_of(picture: Picture, now: float) -> Snapshot:
    """The snapshot as the planner saw it at `now`; agents that were not silent count as heard just then."""
    nodes: dict[str, SlurmNode] = {}
    jobs: dict[int, SlurmJob] = {}
    instances: dict[str, Instance] = {}
    agents: dict[str, AgentView] = {}
    unreachable: set[str] = set()
    cloud: dict[str, tuple[StandingFinding, ...]] = {}
    waiting = 0
    for (kind, name), value in picture.items():
        if kind == "node":
            own = {
                "address": picture.get(("address", name), ""),
                "slurmd_started_at": picture.get(("slurmd", name), 0.0),
                "reason_at": picture.get(("reason_at", name), 0.0),
            }
            nodes[name] = from_plain(SlurmNode, {"name": name, **own, **value})
        elif kind == "job":
            jobs[int(name)] = from_plain(SlurmJob, {"job_id": int(name), **value})
        elif kind == "waiting":
            # Which job it is makes no difference to a plan; no job of Slurm's has such an id.
            waiting -= 1
            jobs[waiting] = SlurmJob(job_id=waiting, states=frozenset({"PENDING"}), partition=name, priority=value)
        elif kind == "instance":
            instances[name] = from_plain(Instance, {"instance_id": name, **value})
        elif kind == "agent":
            own = {
                "heard_at": picture.get(("silent", name), now),
                "verdict": picture.get(("verdict", name)),
                "validating": picture.get(("validating", name), ""),
            }
            agents[name] = from_plain(AgentView, {"node": name, **own, **value})
        elif kind == "unreachable":
            unreachable.add(name)
        elif kind == "cloud":
            cloud[name] = tuple(from_plain(StandingFinding, standing) for standing in value)
    return Snapshot(
        taken_at=now,
        nodes=nodes,
        jobs=jobs,
        instances=instances,
        agents=agents,
        unreachable=frozenset(unreachable),
        cloud=cloud,
        slurm_error=picture.get(("error", "slurm")),
        ec2_error=picture.get(("error", "ec2")),
    )


def rules_to_json(rules: Rules) -> dict[str, Any]:
    """The rules as the record `started` keeps them: of ten thousand node names a hostlist."""
    plain: dict[str, Any] = to_plain(rules)
    for group in plain["groups"]:
        names = [name for name in group["nodes"] if not set(name) & set("*?[")]
        group["nodes"] = [*([fold(names)] if names else []), *(n for n in group["nodes"] if set(n) & set("*?["))]
    return plain


def rules_from_json(data: Mapping[str, Any]) -> Rules:
    """The inverse of `rules_to_json`, up to the order of names. Raises ValueError, KeyError or TypeError."""
    groups = [
        {**group, "nodes": [name for item in group["nodes"] for name in ([item] if "*" in item else expand(item))]}
        for group in data["groups"]
    ]
    return from_plain(Rules, {**data, "groups": groups})


def _sparse(value: SlurmNode | SlurmJob | Instance | AgentView) -> dict[str, Any]:
    """The fields that are not as they are by default, without those that stand elsewhere in the picture or decide nothing."""
    kind: Any = type(value)
    defaults = _defaults(kind)
    plain: dict[str, Any] = to_plain(value)
    return {
        name: each
        for name, each in plain.items()
        if name not in LEFT_OUT[kind] and (name not in defaults or each != defaults[name])
    }


@functools.cache
def _defaults(kind: type) -> dict[str, Any]:
    """The plain values of the fields of `kind` that have one."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        if field.init and field.default is not dataclasses.MISSING:
            found[field.name] = field.default
        elif field.init and field.default_factory is not dataclasses.MISSING:
            found[field.name] = field.default_factory()
    # What JSON makes of it: a tuple becomes a list.
    return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}


def _verdict(verdict: Verdict) -> dict[str, Any]:
    plain: dict[str, Any] = to_plain(verdict)
    plain["findings"] = [_standing(standing) for standing in plain["findings"]]
    plain["unknown"] = [[check, ""] for check, _ in plain["unknown"]]
    return plain


def _standing(plain: Any) -> Any:
    """A standing finding without what makes no difference: seen again a second later it is no news."""
    evidence = plain["finding"]["evidence"]
    finding = {**plain["finding"], "evidence": {key: evidence[key] for key in _EVIDENCE if key in evidence}}
    return {**plain, "last_at": plain["first_at"], "finding": finding}


def _names(kind: str, names: Iterable[str]) -> str | list[str]:
    return fold(names) if kind in _OF_NODES else sorted(names)


def _unfolded(kind: str, names: str | list[str]) -> Iterable[str]:
    return expand(names) if kind in _OF_NODES and isinstance(names, str) else names
