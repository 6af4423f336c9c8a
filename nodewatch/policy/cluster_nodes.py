"""The file of Slurm's node and partition lines that `nodewatch cluster` writes, and such lines of others, read. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from nodewatch.model.hostlist import expand, fold

HEADER = "# Written by `nodewatch cluster apply` from cluster.toml: what is changed here is lost.\n"

_SPELLING = {
    key.lower(): key
    for key in ("CPUs", "Sockets", "CoresPerSocket", "ThreadsPerCore", "RealMemory", "Gres", "Feature", "Weight")
}
_WORD = re.compile(r"[A-Za-z0-9_.:,()/+*@%-]+")
_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_PAIR = re.compile(r'([A-Za-z_]\w*)\s*=\s*("[^"]*"|\S*)')


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What Slurm is told of each node of a group, by slurm.conf's keys, such as `CPUs` and `Gres`."""

    keys: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Nodes of one shape in one partition. `foreign` are nodes that the site's own lines define: of the partition only."""

    nodes: tuple[str, ...]
    partition: str
    shape: Shape
    foreign: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """The node and partition lines of files that are already there."""

    nodes: frozenset[str] = frozenset()
    partitions: Mapping[str, str] = field(default_factory=dict)
    """By name, what `Nodes=` says."""


def nodes_conf(blocks: Sequence[Block], partitions: Mapping[str, Mapping[str, str]], *, theirs: frozenset[str]) -> str:
    """The text of the file: a NodeName line for each block and a PartitionName line for each partition not in `theirs`.

    `partitions` has further keys of a partition's line. Raises ValueError for a word that would break a line.
    """
    lines = []
    members: dict[str, list[str]] = {}
    for block in blocks:
        for name in block.nodes:
            _demand(name, _NAME, "a node's name")
        if block.nodes:
            lines.append(f"NodeName={fold(block.nodes)} {_keys(block.shape.keys)} State=UNKNOWN".replace("  ", " "))
        members.setdefault(block.partition, []).extend((*block.nodes, *block.foreign))
    for name, nodes in sorted(members.items()):
        if not name:
            # Nodes that leave, of a partition that the site's own line gives them.
            continue
        _demand(name, _NAME, "a partition's name")
        # "Nodes=" with nothing behind it is a parse error for every command of Slurm (tried on 24.11).
        if nodes and name not in theirs:
            keys = {"State": "UP", **partitions.get(name, {})}
            lines.append(f"PartitionName={name} Nodes={fold(nodes)} {_keys(keys)}")
    text = HEADER + "".join(f"{line}\n" for line in lines)
    problems = conf_problems(text)
    if problems:
        raise ValueError(problems[0])
    return text


def conf_problems(text: str, *, theirs: Lines | None = None) -> list[str]:
    """What Slurm would refuse of our file `text` beside the site's lines `theirs`.

    A partition with a node that no line defines ends slurmctld at `scontrol reconfigure`, which answers 0 (tried on 24.11).
    """
    found = []
    defined: set[str] = set()
    named: dict[str, list[str]] = {}
    for kind, keys in records(text):
        names = expand(keys[kind])
        if kind == "nodename":
            found += [f"{name} has two NodeName lines" for name in names if name in defined]
            defined |= set(names)
        elif kind == "partitionname":
            if keys[kind] in named:
                found.append(f"partition {keys[kind]} has two PartitionName lines")
            named[keys[kind]] = expand(keys.get("nodes", ""))
    known = defined | (theirs.nodes if theirs else frozenset())
    if theirs is not None:
        found += [f"{name} stands in the site's lines as well" for name in sorted(defined & theirs.nodes)]
        found += [
            f"partition {name} stands in the site's lines as well"
            for name in sorted(set(named) & set(theirs.partitions))
        ]
        found += [
            f"partition {partition} names {name}, which no line defines"
            for partition, nodes in sorted(named.items())
            for name in nodes
            if name not in known
        ]
    return found


def old_blocks(text: str, names: Collection[str]) -> list[Block]:
    """The lines that `names` have in our file `text`, so that a node whose group is gone keeps them until it has gone too."""
    found = list(records(text))
    home = {n: p["partitionname"] for k, p in found if k == "partitionname" for n in expand(p.get("nodes", ""))}
    blocks = []
    for kind, keys in found:
        nodes = tuple(name for name in expand(keys[kind]) if name in names) if kind == "nodename" else ()
        if not nodes:
            continue
        shape = Shape(keys={_spelt(key): value for key, value in keys.items() if key not in ("nodename", "state")})
        for partition in sorted({home.get(name, "") for name in nodes}):
            members = tuple(name for name in nodes if home.get(name, "") == partition)
            blocks.append(Block(nodes=members, partition=partition, shape=shape))
    return blocks


def read_lines(texts: Sequence[str]) -> Lines:
    """The nodes and partitions that `texts`, files of slurm.conf, define. Lines that are no hostlist are passed over."""
    nodes: set[str] = set()
    partitions: dict[str, str] = {}
    for text in texts:
        for kind, keys in records(text):
            if kind == "partitionname":
                partitions[keys[kind]] = keys.get("nodes", "")
                continue
            try:
                nodes |= set(expand(keys[kind]))
            except ValueError:
                continue
    return Lines(
        nodes=frozenset(nodes) - {"DEFAULT"}, partitions={k: v for k, v in partitions.items() if k != "DEFAULT"}
    )


def records(text: str) -> Iterator[tuple[str, dict[str, str]]]:
    """(`nodename` or `partitionname`, the line's keys in lower case) of each such line; continued lines are joined."""
    held = ""
    for raw in text.splitlines():
        line = re.sub(r"(?<!\\)#.*", "", raw).rstrip()
        if line.endswith("\\"):
            held += line[:-1]
            continue
        line, held = held + line, ""
        pairs = {match[1].lower(): match[2].strip('"') for match in _PAIR.finditer(line)}
        first = next(iter(pairs), "")
        if first in ("nodename", "partitionname"):
            yield first, pairs


def _spelt(key: str) -> str:
    return _SPELLING.get(key, key)


def _keys(keys: Mapping[str, str]) -> str:
    for key, value in keys.items():
        _demand(key, _NAME, "a key")
        _demand(value, _WORD, f"{key}'s value")
    return " ".join(f"{key}={value}" for key, value in keys.items())


def _demand(text: str, form: re.Pattern[str], what: str) -> None:
    if not form.fullmatch(text):
        raise ValueError(f"{text!r} cannot be {what} in slurm.conf")
