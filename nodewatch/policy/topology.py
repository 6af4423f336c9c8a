"""Slurm's topology.conf from the network nodes that EC2 names for each machine. Pure."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence

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
