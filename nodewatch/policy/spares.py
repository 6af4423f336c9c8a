"""Warm spares: healthy nodes kept out of service so that a job need not wait for a replacement."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable

from nodewatch.model.actions import HoldSpare
from nodewatch.model.cluster import SPARE_REASON, Snapshot
from nodewatch.model.health import NodeState
from nodewatch.model.ledger import Ledger
from nodewatch.policy.lost import is_silent
from nodewatch.policy.rules import Rules


def is_fit(node: str, snapshot: Snapshot, rules: Rules, now: float) -> bool:
    """Whether `node` is known to be healthy now; silence or doubt is not health."""
    view = snapshot.agents.get(node)
    if view is None or view.verdict is None or is_silent(view, rules, now):
        return False
    return view.verdict.state in (NodeState.HEALTHY, NodeState.SUSPECT)


def held_spares(snapshot: Snapshot, rules: Rules) -> dict[str, list[str]]:
    """By group, its nodes that are held as spares, by name."""
    held: dict[str, list[str]] = {group.name: [] for group in rules.groups}
    for name in snapshot.spares:
        group = rules.group_of(name)
        if group is not None:
            held[group.name].append(name)
    return held


def pick(held: Iterable[str], snapshot: Snapshot, taken: Collection[str], rules: Rules, now: float) -> str | None:
    """The spare of those held to stand in for a broken node: not taken in this tick, and fit."""
    return next(
        (
            name
            for name in held
            if name not in taken and snapshot.nodes[name].is_responding and is_fit(name, snapshot, rules, now)
        ),
        None,
    )


def top_up(snapshot: Snapshot, ledger: Ledger, rules: Rules, now: float) -> list[HoldSpare]:
    """Idle healthy nodes to hold, the last by name first, while a group has fewer spares than it wants.

    Not while one of its nodes is under repair: the machine that comes back becomes the spare, and the one just put into
    service for it must not be taken away again before its job has started.
    """
    wanted = []
    repaired = [case.node for case in ledger.open_cases]
    held = held_spares(snapshot, rules)
    for group in rules.groups:
        missing = group.spares - len(held[group.name])
        if missing <= 0 or any(group.holds(node) for node in repaired):
            continue
        idle = (
            name
            for name, node in sorted(snapshot.nodes.items(), reverse=True)
            if group.holds(name) and node.is_idle and not snapshot.is_busy(name) and is_fit(name, snapshot, rules, now)
        )
        for name in itertools.islice(idle, missing):
            boot = snapshot.agents[name].boot_id
            wanted.append(HoldSpare(key=f"spare:{name}:{boot}:{_turn(ledger, name)}", node=name, reason=SPARE_REASON))
    return wanted


def _turn(ledger: Ledger, node: str) -> int:
    # A node may be held, released and held again within one boot: each time is an action of its own.
    return sum(1 for c in ledger.cases.values() if c.spare == node)
