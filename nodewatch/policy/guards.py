"""What holds a repair back. Each guard is a pure predicate: None to let pass, or the reason in an operator's words."""

from __future__ import annotations

import itertools
import math
from collections import Counter, deque
from collections.abc import Collection, Iterable

from nodewatch.model.cluster import Snapshot
from nodewatch.model.health import Severity
from nodewatch.model.ledger import Case, Ledger, Rung, Step
from nodewatch.policy import bootstrap, scheduled, wishes
from nodewatch.policy.cluster_plan import LEAVING
from nodewatch.policy.rules import Group, Rules
from nodewatch.policy.verbs import FAMILY, asked

_COMPARED = frozenset({"nccl.slow_node", "nccl.failing_node", "nccl.wrong_node"})
"""Found by pair tests, which have looked at the other nodes already (policy/pairs.py)."""


def observing(rules: Rules) -> str | None:
    """Observe mode: everything is decided and written down, nothing is done."""
    if rules.mode == "observe":
        return 'observe mode: nothing is done until [policy] mode = "act" in controller.toml'
    return None


def paused(node: str, ledger: Ledger, snapshot: Snapshot, rules: Rules, now: float) -> str | None:
    """No new repair while an administrator has paused the controller, the node's partition, or the node."""
    if rules.paused:
        return "paused by [policy] paused = true in controller.toml"
    return wishes.pause_of(node, ledger, snapshot, now)


def unmanaged(case: Case, rules: Rules) -> str | None:
    """Only nodes of a configured group are repaired."""
    if rules.group_of(case.node) is None:
        return f"{case.node} is in no group of controller.toml, so it is not ours to repair"
    return None


def foreign(case: Case, snapshot: Snapshot) -> str | None:
    """A node that somebody else took out of service is left alone."""
    node = snapshot.nodes.get(case.node)
    if node is None:
        return f"Slurm does not know {case.node}"
    if node.reason.startswith(LEAVING):
        # Ours by its reason, and no fault's: a repair would launch a machine for a name that has none any more.
        return f"{case.node} is being taken out by `nodewatch cluster`: left alone"
    is_meant = case.family == FAMILY and (wishes.is_wished(case) or asked(node) is not None)
    if node.is_foreign and not is_meant:
        return f"{case.node} was taken out of service by somebody else ({node.reason or 'no reason given'}): left alone"
    return None


def in_maintenance(case: Case, snapshot: Snapshot) -> str | None:
    """A node that an administrator has reserved, or that is powered down, is left alone."""
    node = snapshot.nodes.get(case.node)
    if node is not None and node.is_in_maintenance:
        return f"{case.node} is reserved for maintenance or powered down: left alone"
    return None


def unsettled(case: Case, rules: Rules, now: float) -> str | None:
    """A fault of something shared waits for the other nodes' reports before one node is blamed for it, and so does any fault
    that is not fatal: otherwise the first nodes that a cause comes over are out before it shows on enough of them.

    A fatal fault of a machine's own part waits for nobody, since its job hangs: of a storm of those fewer than `storm_nodes`
    are drained, and none is repaired.
    """
    if not may_be_storm(case):
        return None
    waited = now - case.opened_at
    if case.family in rules.shared_families and waited < rules.shared_settle_s:
        left = rules.shared_settle_s - waited
        return f"{case.family} is shared: waiting {left:.0f} s to see whether other nodes report it too"
    # A rack behind a dead switch goes silent node by node: the first of them must not be ended before the others show it.
    if case.family == "node" and waited < rules.lost_settle_s:
        return f"waiting {rules.lost_settle_s - waited:.0f} s to see whether other nodes are lost too"
    if case.severity < Severity.FATAL and waited < rules.settle_s and case.fault not in _COMPARED:
        left = rules.settle_s - waited
        return (
            f"{case.fault} is not fatal: waiting {left:.0f} s to see whether other nodes show {case.family} faults too"
        )
    return None


def may_be_storm(case: Case) -> bool:
    """Whether the case on many nodes at once would speak of something shared. An operator's wishes do not, nor do events that
    EC2 plans for many machines in one letter: each is what it says."""
    return case.family != FAMILY and case.fault != scheduled.FAULT


def storming(family: str, ledger: Ledger, opening: Collection[Case], rules: Rules, now: float) -> str | None:
    """One fault family on many nodes at once is not the nodes: nothing is repaired until it has calmed down.

    The cool-down runs from the last case that belonged to the storm, since curing one root cause brings nodes back one
    at a time.
    """
    known = {**ledger.cases, **{c.case_id: c for c in opening}}.values()
    cases = [c for c in known if c.family == family and may_be_storm(c)]
    span = rules.storm_window_s
    recent = sorted((c.opened_at, c.node) for c in cases if now - c.opened_at <= span + rules.storm_cooldown_s)
    within: Counter[str] = Counter()
    end = 0
    for start, node in recent:
        while end < len(recent) and recent[end][0] - start <= span:
            within[recent[end][1]] += 1
            end += 1
        if len(within) >= rules.storm_nodes and now - recent[end - 1][0] <= rules.storm_cooldown_s:
            return (
                f"storm: {family} faults on {len(within)} nodes within {span:.0f} s look like something shared; "
                f"nothing is repaired until {rules.storm_cooldown_s:.0f} s after the last one"
            )
        within[node] -= 1
        if not within[node]:
            del within[node]
    return None


def lasting_storms(cases: Iterable[Case], rules: Rules, now: float) -> dict[str, str]:
    """By case id, why it is held although the storm has calmed down: the nodes that it came over still show the fault, or did
    until a moment ago.

    A switch that is dead for an hour brings no new reports after the first minute. Without this, the cool-down over, its nodes
    would be replaced one by one. Cases of the same family elsewhere go on.
    """
    showing = sorted((c.family, c.opened_at, c.case_id) for c in cases if _shows(c, rules, now))
    held: dict[str, str] = {}
    for family, members in itertools.groupby(showing, key=lambda entry: entry[0]):
        near: deque[tuple[float, str]] = deque()
        for _, at, case_id in members:
            near.append((at, case_id))
            while at - near[0][0] > rules.storm_window_s:
                near.popleft()
            if len(near) < rules.storm_nodes or now - at > rules.storm_hold_s:
                continue
            why = (
                f"storm: {family} faults came over {rules.storm_nodes} or more nodes within {rules.storm_window_s:.0f} s, "
                "which still show them: mend what they share, or replace one with --force"
            )
            # From the newest back to the first that is held already: those before it are as well.
            for _, member in itertools.takewhile(lambda entry: entry[1] not in held, reversed(near)):
                held[member] = why
    return held


def _shows(case: Case, rules: Rules, now: float) -> bool:
    """Whether nothing was done for the case yet, and its fault stands or has gone by itself within the cool-down: what came
    over many nodes leaves them one at a time."""
    if not may_be_storm(case) or case.tried or case.new_instance:
        return False
    if case.step is Step.CLOSED:
        return now - case.step_at <= rules.storm_cooldown_s
    return case.step in (Step.HELD, Step.DRAINING)


def max_out(group: Group, members: int, out: int, rules: Rules) -> str | None:
    """At most so many nodes of a group are out at once because of us."""
    by_share = max(1, math.floor(members * rules.max_out_share))
    limit = min(rules.max_out, by_share)
    if out >= limit:
        return f"{out} of {members} nodes of group {group.name} are out already, the limit is {limit}"
    return None


def replacing(case: Case, ledger: Ledger, snapshot: Snapshot, rules: Rules, now: float) -> str | None:
    """What keeps a replacement from starting: no template, no picture of EC2, too many lately, or too many that failed."""
    group = rules.group_of(case.node)
    if group is None or not group.has_ec2:
        return f"no launch_template is configured for the group of {case.node}: replace it by hand, then return it"
    if snapshot.ec2_error is not None:
        return f"EC2 could not be read ({snapshot.ec2_error}): no machine is replaced on half a picture"
    if ledger.failed_replacements >= rules.failed_replacements_limit:
        last = bootstrap.last_failure(ledger)
        return (
            f"protected mode: {ledger.failed_replacements} replacements in a row did not come up healthy"
            f"{f', the last {last}' if last else ''}; look at the launch template and the boot log of the last one"
        )
    return replacements(group, ledger, rules, now)


def replacements(group: Group, ledger: Ledger, rules: Rules, now: float) -> str | None:
    """At most so many machines an hour and a day are bought, and what that comes to."""
    for span_s, word, limit in (
        (3600.0, "hour", rules.replacements_per_hour),
        (86400.0, "day", rules.replacements_per_day),
    ):
        lately = sum(1 for at in ledger.replacements if now - at <= span_s)
        if lately >= limit:
            return f"{lately} replacements within the last {word}, the limit is {limit}{_cost(group, lately, rules)}"
    return None


def _cost(group: Group, machines: int, rules: Rules) -> str:
    """What these machines cost until they worked, at most: each may boot and be tested for as long as the rules allow."""
    if group.price_per_hour <= 0:
        return ""
    hours = (rules.launch_timeout_s + rules.validate_timeout_s) / 3600
    most = machines * hours * group.price_per_hour
    return (
        f"; at {group.price_per_hour:.2f} an hour each they cost up to {most:.2f} while they booted and were tested, and one "
        f"more costs up to {hours * group.price_per_hour:.2f}"
    )


def counts_as_out(case: Case) -> bool:
    """Whether the case keeps its node out of service now, or may the next moment: one that is watched goes out again by itself
    when its fault comes back, whoever was let out meanwhile."""
    return case.is_admitted and case.rung > Rung.OBSERVE
