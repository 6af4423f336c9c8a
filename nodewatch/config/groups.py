"""Groups of nodes as a site writes them, checked and with their hostlists expanded: [[groups]] of either file."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from nodewatch.errors import ConfigError
from nodewatch.model.hostlist import expand
from nodewatch.policy import capacity
from nodewatch.policy.rules import Group


def checked_groups(groups: Iterable[Group], path: Path) -> tuple[Group, ...]:
    """The groups of the file `path`, expanded. Raises ConfigError with one sentence that says what to change."""
    found = [_checked(group, path) for group in groups]
    claimed: dict[str, str] = {}
    for group in found:
        for name in group.nodes:
            if name in claimed:
                raise ConfigError(f"{path}: groups: {name} is in {claimed[name]!r} and in {group.name!r}; name it once")
            claimed[name] = group.name
    for group in found:
        for name, owner in claimed.items():
            if owner != group.name and group.holds(name):
                raise ConfigError(
                    f"{path}: groups: {name} is in {owner!r} and matches a pattern of {group.name!r}; name it once"
                )
    return tuple(found)


def _checked(group: Group, path: Path) -> Group:
    names = names_of(group.name, group.nodes, path)
    if group.spares < 0 or (group.spares >= len(names) and "*" not in "".join(names)):
        raise ConfigError(
            f"{path}: groups: {group.name!r} has {len(names)} nodes and wants {group.spares} of them as spares; "
            "a group needs at least one node that is not a spare"
        )
    _check_capacity(path, group)
    return dataclasses.replace(group, nodes=names, domains=_domains(group, names, path))


def names_of(group: str, nodes: Iterable[str], path: Path) -> tuple[str, ...]:
    """The names that the hostlists `nodes` of a group stand for, in their order. Raises ConfigError, also for none."""
    try:
        names = tuple(name for item in nodes for name in expand(item))
    except ValueError as error:
        raise ConfigError(f"{path}: groups: nodes of {group!r}: {error}") from error
    if not names:
        raise ConfigError(f'{path}: groups: {group!r} has no nodes; give a hostlist such as ["n[1-4]"]')
    return names


def _domains(group: Group, names: tuple[str, ...], path: Path) -> dict[str, tuple[str, ...]]:
    """The group's failure domains with their hostlists expanded. Raises ConfigError for a node that is in two of them, or
    in none of the group."""
    domains: dict[str, tuple[str, ...]] = {}
    seen: dict[str, str] = {}
    known = dataclasses.replace(group, nodes=names, domains={})
    for domain, items in sorted(group.domains.items()):
        where = f"{path}: groups: domain {domain!r} of {group.name!r}"
        try:
            members = tuple(name for item in items for name in expand(item))
        except ValueError as error:
            raise ConfigError(f"{where}: {error}") from error
        for name in members:
            if not known.holds(name):
                raise ConfigError(f"{where}: {name} is no node of the group; a domain divides the nodes of its group")
            if name in seen:
                raise ConfigError(f"{where}: {name} is in the domain {seen[name]!r} as well; name it once")
            seen[name] = domain
        domains[domain] = members
    return domains


def _check_capacity(path: Path, group: Group) -> None:
    """Raises ConfigError for sources of capacity that are not understood or do not go with the rest of the group."""
    try:
        sources = capacity.sources(group)
    except ValueError as error:
        raise ConfigError(f"{path}: groups: {group.name!r}: {error}") from error
    if not sources:
        raise ConfigError(
            f'{path}: groups: {group.name!r}: capacity is empty; leave it out, or use ["launch_template"]'
        )
    kinds = {source.kind for source in sources}
    if group.has_ec2 and not group.launch_template and kinds != {capacity.Kind.ASG}:
        raise ConfigError(f"{path}: groups: {group.name!r}: its capacity needs a launch_template")
    needs_slot = capacity.Kind.ASG in kinds or capacity.Kind.BLOCK in kinds or group.terminate_first
    if group.on_replace == "quarantine" and needs_slot:
        raise ConfigError(
            f"{path}: groups: {group.name!r}: a machine in quarantine keeps its slot, which asg, block and terminate_first "
            'need; use on_replace = "terminate"'
        )
