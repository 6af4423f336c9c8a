"""Which nodes are asked to validate themselves outside of a repair: at an operator's wish, at first boot, and as a sweep.

Deep diagnostics load the whole machine. They are asked for on nodes that are empty, a few at a time, and never in a
partition where jobs wait, except on warm spares; the agent itself gives way when a job comes all the same. One that gave
way is asked for again when the node is empty.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from nodewatch.model import actions as act
from nodewatch.model.cluster import AgentView, SlurmNode, Snapshot
from nodewatch.model.ledger import Case, CheckRun, CheckWish, Ledger
from nodewatch.model.plan import Held
from nodewatch.policy.lost import is_silent
from nodewatch.policy.rules import Rules

_AGAIN_S = 600.0
"""Rest between two validations of a node that nobody asked for: one that gave way must not chase every gap between jobs."""
_UNANSWERED = 3
"""So often an agent is asked that never answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What to ask for now: `for_operators` even where nothing else is done, and why a wish waits."""

    for_operators: tuple[act.DeepCheck, ...] = ()
    by_itself: tuple[act.DeepCheck, ...] = ()
    held: tuple[Held, ...] = ()


def wanted(snapshot: Snapshot, ledger: Ledger, cases: Iterable[Case], rules: Rules, now: float) -> Wanted:
    """The validations to ask for at `now`; none twice, however often it is called."""
    running = {run.action.node for run in ledger.check_runs.values() if is_pending(run, rules, now)}
    repaired = {case.node: case for case in cases if case.is_out}
    asked: list[act.DeepCheck] = []
    held: list[Held] = []
    for wish in sorted(ledger.check_wishes.values(), key=lambda wish: (wish.at, wish.node)):
        if wish.node in running:
            continue
        why = _waits(wish, snapshot, ledger, repaired, rules, now)
        if why is not None:
            held.append(Held(subject=wish.node, why=f"{wish.suite} checks were asked for: {why}"))
            continue
        view = snapshot.agents[wish.node]
        number = len(_runs_of(wish, ledger))
        asked.append(
            act.DeepCheck(
                key=f"{wish.key}.{number}",
                node=wish.node,
                suite=wish.suite,
                why="operator",
                instance_id=view.instance_id,
            )
        )
    wished = {wish.node for wish in ledger.check_wishes.values()}
    swept = _sweep(snapshot, ledger, {*running, *repaired, *wished}, rules, now)
    return Wanted(for_operators=tuple(asked), by_itself=tuple(swept), held=tuple(held))


def is_pending(run: CheckRun, rules: Rules, now: float) -> bool:
    """Whether its answer may still come."""
    return run.answer is None and now - run.at < rules.check_timeout_s


def requests(node: str, ledger: Ledger, rules: Rules, now: float) -> tuple[tuple[str, str], ...]:
    """(key, suite) of the validations outside of repairs that the agent of `node` owes an answer to."""
    return tuple(
        (key, run.action.suite)
        for key, run in sorted(ledger.check_runs.items())
        if run.action.node == node and is_pending(run, rules, now)
    )


def _runs_of(wish: CheckWish, ledger: Ledger) -> list[CheckRun]:
    return [run for key, run in ledger.check_runs.items() if key.startswith(f"{wish.key}.")]


def _waits(
    wish: CheckWish, snapshot: Snapshot, ledger: Ledger, repaired: dict[str, Case], rules: Rules, now: float
) -> str | None:
    """Why a wish cannot be fulfilled now."""
    node = wish.node
    view = snapshot.agents.get(node)
    if view is None:
        return f"no agent of {node} was ever heard"
    if is_silent(view, rules, now):
        return f"the agent of {node} is silent"
    if node in repaired:
        return f"{node} is under repair ({repaired[node].case_id}), which ends with the same checks"
    if sum(run.answer is None for run in _runs_of(wish, ledger)) >= _UNANSWERED:
        return f"the agent of {node} was asked {_UNANSWERED} times and never answered"
    if wish.suite == "deep" and snapshot.is_busy(node):
        jobs = ",".join(str(job.job_id) for job in snapshot.jobs_on(node)) or "its clean-up"
        return f"{node} is busy with {jobs}"
    return None


def _sweep(snapshot: Snapshot, ledger: Ledger, not_these: set[str], rules: Rules, now: float) -> list[act.DeepCheck]:
    if rules.sweep_every_s <= 0:
        return []
    going = sum(run.action.why != "operator" and is_pending(run, rules, now) for run in ledger.check_runs.values())
    if going >= rules.sweep_at_once:
        return []
    contested = snapshot.partitions_waited_for()
    last: dict[str, float] = {}
    for run in ledger.check_runs.values():
        last[run.action.node] = max(run.at, last.get(run.action.node, 0.0))
    due: list[tuple[float, str, str, AgentView]] = []
    for name, node in snapshot.nodes.items():
        # Most nodes of a cluster at work are busy, which is told at once.
        if node.is_busy or name in not_these or not _is_free(node, snapshot, contested):
            continue
        view = snapshot.agents.get(name)
        if view is None or is_silent(view, rules, now) or rules.group_of(name) is None:
            continue
        if now - last.get(name, float("-inf")) < _AGAIN_S:
            continue
        tested = ledger.tested.get(name)
        if tested is None or tested.instance_id != view.instance_id:
            due.append((0.0, name, "first_boot", view))
        elif now - tested.at >= rules.sweep_every_s:
            due.append((tested.at, name, "sweep", view))
    due.sort(key=lambda item: item[:2])
    return [
        act.DeepCheck(key=f"sweep:{name}:{int(now)}", node=name, suite="deep", why=why, instance_id=view.instance_id)
        for _, name, why, view in due[: rules.sweep_at_once - going]
    ]


def _is_free(node: SlurmNode, snapshot: Snapshot, contested: frozenset[str]) -> bool:
    if node.is_spare:
        return node.is_responding and not snapshot.is_busy(node.name)
    return node.is_idle and not snapshot.jobs_on(node.name) and not contested.intersection(node.partitions)
