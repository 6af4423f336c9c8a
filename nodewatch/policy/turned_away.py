"""Nodes that Slurm drained because their agent turned a job away, given back once the fault has gone by itself.

A prolog that says no has slurmd drain its node, whatever the planner thinks of the fault. While a shared file system hangs, the
repairs of all its nodes are held back, and each job of the queue has Slurm drain another one: without this, the file system
well again, an operator would find the cluster drained.

Only for faults of what nodes share (`shared_families`): the deep checks say nothing of a file server, and hundreds of nodes
would wait for them. A node that may be broken itself is not returned unchecked.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from nodewatch.model import actions as act
from nodewatch.model.cluster import Snapshot
from nodewatch.model.ledger import Case, Ledger
from nodewatch.model.plan import Held
from nodewatch.policy import guards, spares
from nodewatch.policy.rules import Rules


def returns(
    cases: Collection[Case], faulty: Collection[str], snapshot: Snapshot, ledger: Ledger, rules: Rules, now: float
) -> Iterator[act.Action | Held]:
    """The return of each such node that has been healthy for `healthy_delay_s`, and what the others wait for.

    `cases` are the open ones, whose nodes are theirs; `faulty` are the nodes against which something stands.
    """
    if not ledger.turned_away:
        return
    cared_for = {case.node for case in cases}
    for node in snapshot.with_reason:
        at = ledger.turned_away.get(node.name)
        # Out, and neither by us nor by somebody: by Slurm, when a prolog or epilog failed.
        is_by_slurm = node.is_out and not node.is_ours and not node.is_foreign
        if at is None or not is_by_slurm or node.name in cared_for or node.name in faulty:
            continue
        if rules.group_of(node.name) is None or node.is_in_maintenance or not node.is_responding:
            continue
        if not _was_of_something_shared(node.name, at, ledger, rules):
            continue
        why = guards.paused(node.name, ledger, snapshot, rules, now)
        if why is None:
            why = _not_well_yet(node.name, snapshot, rules, now)
        if why is None:
            yield act.ReturnToService(key=f"turned-away:{node.name}:{at:.3f}:return", node=node.name)
        else:
            yield Held(
                subject=node.name, why=f"Slurm drained {node.name} when a job was turned away ({node.reason}): {why}"
            )


def _was_of_something_shared(node: str, at: float, ledger: Ledger, rules: Rules) -> bool:
    """Whether the cases that the node had when the job was turned away, or since, were all of shared faults."""
    families = {case.family for case in ledger.cases.values() if case.node == node and case.step_at >= at}
    return bool(families) and families <= set(rules.shared_families)


def _not_well_yet(node: str, snapshot: Snapshot, rules: Rules, now: float) -> str | None:
    view = snapshot.agents.get(node)
    if view is None or view.verdict is None or not spares.is_fit(node, snapshot, rules, now):
        return "it returns once its agent calls it healthy"
    left_s = view.verdict.since + rules.healthy_delay_s - now
    return f"it returns after {left_s:.0f} s more without the fault" if left_s > 0 else None
