"""Nodes that Slurm drained because their agent turned a job away, given back once the fault has gone by itself.

A prolog that says no has slurmd drain its node, whatever the planner thinks of the fault. While a shared file system hangs, the
repairs of all its nodes are held back, and each job of the queue has Slurm drain another one: without this, the file system
well again, an operator would find the cluster drained.

Only for faults of what nodes share (`shared_families`) that other nodes showed as well: the deep checks say nothing of a file
server, and hundreds of nodes would wait for them. A node that may be broken itself is not returned unchecked: one that shows
such a fault alone, that had another fault since, or that Slurm drained at another time, for whatever failed then.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from nodewatch.model import actions as act
from nodewatch.model.cluster import SlurmNode, Snapshot
from nodewatch.model.ledger import Case, Ledger, TurnedAway
from nodewatch.model.plan import Held
from nodewatch.policy import guards, spares
from nodewatch.policy.rules import Rules

_OF_HOOKS = ("Prolog error", "Epilog error")
_APART_S = 60.0
"""Between our no, by the node's clock, and the reason, by slurmctld's. Slurm sets it within seconds; MUNGE bears with clocks
that are up to five minutes apart, ours is less: a node that is not returned costs less than one that is and should not."""


def returns(
    cases: Collection[Case], faulty: Collection[str], snapshot: Snapshot, ledger: Ledger, rules: Rules, now: float
) -> Iterator[act.Action | Held]:
    """The return of each such node that has been healthy for `healthy_delay_s`, and what the others wait for.

    `cases` are the open ones, whose nodes are theirs; `faulty` are the nodes against which something stands.
    """
    if not ledger.turned_away:
        return
    cared_for = {case.node for case in cases}
    spread: Mapping[str, _Spread] = {}
    for node in snapshot.with_reason:
        away = ledger.turned_away.get(node.name)
        if away is None or not _is_by_slurm(node) or node.name in cared_for or node.name in faulty:
            continue
        if rules.group_of(node.name) is None or node.is_in_maintenance or not node.is_responding:
            continue
        at = next((at for at in away.times if abs(node.reason_at - at) <= _APART_S), None)
        if at is None or not _was_of_something_shared(away, at, rules):
            continue
        spread = spread or _spread(ledger, rules)
        why = guards.paused(node.name, ledger, snapshot, rules, now)
        if not any(spread[family].is_wide(at, rules) for family in _families(away, at) if family in spread):
            why = f"no other node had the fault then: `nodewatch check --deep {node.name}`, then `nodewatch return {node.name}`"
        if why is None:
            why = _not_well_yet(node.name, snapshot, rules, now)
        if why is None:
            yield act.ReturnToService(key=f"turned-away:{node.name}:{at:.3f}:return", node=node.name)
        else:
            yield Held(
                subject=node.name, why=f"Slurm drained {node.name} when a job was turned away ({node.reason}): {why}"
            )


def _is_by_slurm(node: SlurmNode) -> bool:
    """Out because a hook said no, and nothing else: Slurm drains for a process that cannot be killed as well."""
    return node.is_out and not node.is_down and node.reason.startswith(_OF_HOOKS)


def _families(away: TurnedAway, at: float) -> set[str]:
    return {family for family, told_at in away.families if told_at >= at - _APART_S}


def _was_of_something_shared(away: TurnedAway, at: float, rules: Rules) -> bool:
    """Whether what the job was turned away for, and every case that the node had then or since, was of shared faults."""
    families = _families(away, at)
    return bool(families) and families <= set(rules.shared_families)


class _Spread:
    """When which nodes had cases of one family."""

    def __init__(self) -> None:
        self._spans: list[tuple[float, float, str]] = []

    def add(self, case: Case) -> None:
        self._spans.append((case.opened_at, float("inf") if case.is_open else case.step_at, case.node))

    def is_wide(self, at: float, rules: Rules) -> bool:
        """Whether as many nodes as make a storm had one within `storm_window_s` of `at`."""
        window_s = rules.storm_window_s
        nodes: set[str] = set()
        for opened_at, ended_at, node in self._spans:
            if opened_at - window_s <= at <= ended_at + window_s:
                nodes.add(node)
                if len(nodes) >= rules.storm_nodes:
                    return True
        return False


def _spread(ledger: Ledger, rules: Rules) -> Mapping[str, _Spread]:
    found = {family: _Spread() for family in rules.shared_families}
    # The newest first: of a storm the first few answer the question for each of its nodes.
    for case in sorted(ledger.cases.values(), key=lambda case: (-case.opened_at, case.case_id)):
        if case.family in found:
            found[case.family].add(case)
    return found


def _not_well_yet(node: str, snapshot: Snapshot, rules: Rules, now: float) -> str | None:
    view = snapshot.agents.get(node)
    if view is None or view.verdict is None or not spares.is_fit(node, snapshot, rules, now):
        return "it returns once its agent calls it healthy"
    left_s = view.verdict.since + rules.healthy_delay_s - now
    return f"it returns after {left_s:.0f} s more without the fault" if left_s > 0 else None
