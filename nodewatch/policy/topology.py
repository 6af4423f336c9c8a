"""Slurm's topology.conf from the network nodes that EC2 names for each machine. Pure."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence

from nodewatch.model.hostlist import expand

_WORD = re.compile(r"[A-Za-z0-9_.-]+")


def topology_conf(paths: Mapping[str, Sequence[str]]) -> str:
    """The text of topology.conf for topology/tree. `paths` has for each node its network nodes from the top down.

    Nodes without a path hang below a switch of their own, so that slurmctld, which refuses a tree that misses a node, takes
    the file and knows them to be far from all others. Raises ValueError for a name that would break a line of the file, and
    for a network node that has two different ones above it.
    """
    for name in {*paths, *(step for path in paths.values() for step in path)}:
        if not _WORD.fullmatch(name):
            raise ValueError(f"{name!r} cannot be written into topology.conf")
    above: dict[str, str] = {}
    nodes: dict[str, list[str]] = {}
    tops: dict[str, None] = {}
    for node, path in sorted(paths.items()):
        steps = list(path) or ["unplaced"]
        tops[steps[0]] = None
        for upper, lower in itertools.pairwise(steps):
            if above.setdefault(lower, upper) != upper:
                raise ValueError(f"EC2 names both {above[lower]} and {upper} above {lower}: ask again")
        nodes.setdefault(steps[-1], []).append(node)
    below: dict[str, list[str]] = {}
    for lower, upper in sorted(above.items()):
        below.setdefault(upper, []).append(lower)
    mixed = sorted(set(below) & set(nodes))
    if mixed:
        raise ValueError(f"{mixed[0]} has both switches and nodes below it, which topology.conf cannot say")
    lines = [f"SwitchName={name} Nodes={','.join(members)}" for name, members in sorted(nodes.items())]
    lines += [f"SwitchName={name} Switches={','.join(members)}" for name, members in sorted(below.items())]
    roots = sorted(name for name in tops if name not in above)
    if len(roots) > 1:
        # Jobs that are larger than what hangs below one of EC2's top nodes would never start in a forest.
        lines.append(f"SwitchName=ec2 Switches={','.join(roots)}")
    return "\n".join(lines) + "\n"


def topology_problems(text: str, nodes: Iterable[str]) -> list[str]:
    """What is wrong with topology.conf's `text` for a cluster of `nodes`, before slurmctld sees it.

    Tried on 24.11: a loop makes slurmctld refuse the file, while a node that it does not know, that hangs below two switches
    or below none gives a warning in its log and a node that large jobs never get. An empty file: no switches at all.
    """
    problems = []
    above: dict[str, str] = {}
    below: dict[str, list[str]] = {}
    known = set(nodes)
    placed: dict[str, str] = {}
    for line in text.splitlines():
        words = dict(word.partition("=")[::2] for word in line.split() if "=" in word)
        if not words:
            continue
        name = words.get("SwitchName", "")
        children = expand(words.get("Switches", ""))
        members = expand(words.get("Nodes", ""))
        if name in below:
            problems.append(f"switch {name} has two lines")
        if not children and not members:
            problems.append(f"switch {name} has nothing below it")
        below[name] = children
        problems += [
            f"switch {child} is below {above[child]} and {name}"
            for child in children
            if above.setdefault(child, name) != name
        ]
        if len(set(members)) < len(members):
            problems.append(f"switch {name} names a node twice")
        problems += [
            f"{node} is below {placed[node]} and {name}" for node in members if placed.setdefault(node, name) != name
        ]
    problems += [f"switch {child} is named and has no line" for child in above if child not in below]
    problems += [f"{node} is no node of Slurm's" for node in sorted(set(placed) - known)]
    problems += [f"{node} is below no switch" for node in sorted(known - set(placed))]
    for name in sorted(below):
        seen, step = {name}, above.get(name)
        while step is not None and step not in seen:
            seen.add(step)
            step = above.get(step)
        if step is not None:
            problems.append(f"switch {name} is below itself")
    roots = [name for name in below if name not in above]
    if len(roots) > 1:
        problems.append(f"{' and '.join(sorted(roots)[:2])} have no switch in common")
    return problems
