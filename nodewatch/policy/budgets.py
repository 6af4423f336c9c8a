"""Limits that count: how many nodes may be out, how many must be left, and how many machines may be bought. Pure.

Each says no as one sentence with the numbers in it, None where nothing stands against it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping

from nodewatch.model.actions import Launch
from nodewatch.model.cluster import SlurmNode, Snapshot
from nodewatch.model.ledger import ActionState, Case, Ledger, Step
from nodewatch.policy import capacity, guards
from nodewatch.policy.case_steps import key_of
from nodewatch.policy.rules import Group, Rules

_ALL = "*"


class Occupancy:
    """How many nodes are out because of us and how many are in service, kept up while cases are admitted one by one."""

    def __init__(self, cases: Iterable[Case], snapshot: Snapshot, rules: Rules) -> None:
        self._snapshot = snapshot
        self._rules = rules
        self._admitted: dict[str, Case] = {}
        self._out: set[str] = set()
        self._out_of_group: Counter[str] = Counter()
        self._out_of_domain: Counter[tuple[str, str]] = Counter()
        self._members: Counter[str] = Counter()
        self._serving: Counter[str] = Counter()
        self._size: Counter[str] = Counter()
        self._is_counted = False
        for case in cases:
            if case.is_admitted:
                self._take(case)

    def admitted_on(self, node: str) -> Case | None:
        """The case for which `node` is under repair, None where it is not."""
        return self._admitted.get(node)

    def admit(self, case: Case) -> None:
        """The case goes on: its node is out from now on, whatever Slurm's picture says yet."""
        self._take(case)
        known = self._snapshot.nodes.get(case.node)
        if self._is_counted and known is not None and is_serving(known):
            for partition in known.partitions:
                self._serving[partition] -= 1

    def why_not(self, node: str, group: Group) -> str | None:
        """Why one more node of the group may not go out, None when it may."""
        self._count()
        return (
            guards.max_out(group, self._members[group.name], self._out_of_group[group.name], self._rules)
            or self._domain(node, group)
            or self._min_healthy(node)
        )

    def _domain(self, node: str, group: Group) -> str | None:
        limit = self._rules.max_out_per_domain
        domain = group.domain_of(node)
        if limit == 0 or domain is None:
            return None
        out = self._out_of_domain[group.name, domain]
        if out >= limit:
            return (
                f"{out} nodes of the failure domain {domain} are out already, the limit is {limit}: "
                "more of them would look like the domain itself"
            )
        return None

    def _min_healthy(self, node: str) -> str | None:
        known = self._snapshot.nodes.get(node)
        if known is None or not is_serving(known):
            # It serves nobody as it is: taking it out costs nothing.
            return None
        for partition in known.partitions:
            wanted = self._rules.min_healthy.get(partition, self._rules.min_healthy.get(_ALL))
            if wanted is None:
                continue
            least = math.ceil(wanted * self._size[partition]) if wanted < 1 else int(wanted)
            serving = self._serving[partition]
            if serving - 1 < least:
                return (
                    f"partition {partition} has {serving} of {self._size[partition]} nodes in service and must keep "
                    f"{least} (min_healthy): {node} stays until others are back"
                )
        return None

    def _take(self, case: Case) -> None:
        self._admitted.setdefault(case.node, case)
        group = self._rules.group_of(case.node)
        if group is None or case.node in self._out or not guards.counts_as_out(case):
            return
        self._out.add(case.node)
        self._out_of_group[group.name] += 1
        domain = group.domain_of(case.node)
        if domain is not None:
            self._out_of_domain[group.name, domain] += 1

    def _count(self) -> None:
        # Only when a case asks: most ticks admit nothing, and the cluster has a hundred thousand nodes.
        if self._is_counted:
            return
        self._is_counted = True
        for name, known in self._snapshot.nodes.items():
            group = self._rules.group_of(name)
            if group is not None:
                self._members[group.name] += 1
            self._size.update(known.partitions)
            # One just admitted still serves in Slurm's picture and will not a moment later.
            drains = name in self._admitted and self._admitted[name].is_out
            if is_serving(known) and not drains:
                self._serving.update(known.partitions)


def is_serving(node: SlurmNode) -> bool:
    """Whether jobs can start or run on the node: a warm spare does not count until it stands in."""
    return not (node.is_out or node.is_down or node.is_in_maintenance) and node.is_responding


def refused(cases: Iterable[Case], ledger: Ledger, rules: Rules, now: float) -> Mapping[str, str]:
    """By group, why nobody else asks EC2 for a machine now: each of its sources refused one of the group, and that one's next
    try will tell. A source that was not asked yet, or that has given the group a machine since, is asked by the others as well.

    Fifty nodes that each ask every minute are throttled, and the throttling hits the reading of EC2 as well.
    """
    waiting = [case for case in cases if case.step is Step.LAUNCHING]
    if not waiting:
        return {}
    newest: dict[str, tuple[float, str]] = {}
    for case in sorted(waiting, key=lambda known: known.case_id):
        group = rules.group_of(case.node)
        base = key_of(case, "launch", case.attempt)
        found = capacity.exhausted(base, group, ledger, rules, now) if group is not None else None
        if group is None or found is None:
            continue
        record, word, left = found
        if group.name not in newest or record.at > newest[group.name][0]:
            why = (
                f"EC2 has no capacity for group {group.name} ({record.error}): waiting for the next try for {case.node}, "
                f"{word} in {left:.0f} s"
            )
            newest[group.name] = (record.at, why)
    if not newest:
        return {}
    for launched in ledger.actions.values():
        if isinstance(launched.action, Launch) and launched.state is ActionState.DONE:
            group = rules.group_of(launched.action.node)
            if group is not None and group.name in newest and launched.at > newest[group.name][0]:
                del newest[group.name]
    return {name: why for name, (_, why) in newest.items()}
