"""What operators ask for by `nodewatch replace|reboot|drain|return|pause|resume`, and what the planner does of it.

A wish is a record of the journal, like everything else that the planner acts on: it outlives the controller, and it can
be tried out on a copy of the ledger before it is made.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping

from nodewatch.model import actions as act
from nodewatch.model.cluster import OWNED_PREFIX, Snapshot
from nodewatch.model.health import Finding, Remedy, Severity, StandingFinding
from nodewatch.model.ledger import Case, Ledger, Pause, Step, Wish
from nodewatch.model.records import Record
from nodewatch.policy.lost import is_silent
from nodewatch.policy.rules import Rules
from nodewatch.policy.verbs import FAMILY

REPAIRS = ("replace", "reboot")
VERBS = (*REPAIRS, "drain", "return")
_AT_WORK = (Step.REBOOTING, Step.LAUNCHING, Step.BOOTING)


def asked(ledger: Ledger, record: Record) -> Ledger:
    """`operator_asked`: the newest wish for a node takes the place of an older one."""
    data = record.data
    wishes = dict(ledger.wishes)
    for node in data["nodes"]:
        wishes[str(node)] = Wish(
            key=f"operator:{node}:{record.at:.3f}",
            verb=str(data["verb"]),
            node=str(node),
            at=record.at,
            by=str(data.get("by") or ""),
            reason=str(data.get("reason") or ""),
            is_forced=bool(data.get("force")),
        )
    return dataclasses.replace(ledger, wishes=wishes)


def paused(ledger: Ledger, record: Record) -> Ledger:
    """`paused`: a scope is `cluster`, `partition:NAME` or `node:NAME`."""
    data = record.data
    until = data.get("until")
    pauses = dict(ledger.pauses)
    for scope in data["scopes"]:
        pauses[str(scope)] = Pause(
            scope=str(scope),
            at=record.at,
            until=None if until is None else float(until),
            by=str(data.get("by") or ""),
            reason=str(data.get("reason") or ""),
        )
    return dataclasses.replace(ledger, pauses=pauses)


def resumed(ledger: Ledger, record: Record) -> Ledger:
    """`resumed`: the scopes are paused no longer."""
    gone = {str(scope) for scope in record.data["scopes"]}
    return dataclasses.replace(ledger, pauses={k: pause for k, pause in ledger.pauses.items() if k not in gone})


def settled_by_case(ledger: Ledger, case: Case) -> Ledger:
    """A closed case of an operator's wish for a repair fulfils it. A drain or a return that was asked for since is why it was
    closed, and is fulfilled by its own action: Slurm may refuse that once."""
    wish = ledger.wishes.get(case.node)
    if case.family != FAMILY or case.is_open or wish is None or wish.at > case.step_at or wish.verb not in REPAIRS:
        return ledger
    return dataclasses.replace(ledger, wishes={k: known for k, known in ledger.wishes.items() if k != case.node})


def settled_by_action(ledger: Ledger, key: str) -> Ledger:
    """The action of a wish that is no repair fulfils it."""
    left = {node: wish for node, wish in ledger.wishes.items() if not key.startswith(f"{wish.key}:")}
    return ledger if len(left) == len(ledger.wishes) else dataclasses.replace(ledger, wishes=left)


def findings(ledger: Ledger) -> Iterator[tuple[str, StandingFinding]]:
    """(node, finding) for each repair that was asked for: jobs may finish, unless it was forced."""
    for node, wish in sorted(ledger.wishes.items()):
        if wish.verb in REPAIRS:
            finding = Finding(
                fault=f"{FAMILY}.{wish.verb}",
                subject=node,
                severity=Severity.FATAL if wish.is_forced else Severity.DEGRADED,
                remedy=Remedy[wish.verb.upper()],
                evidence={"by": wish.by, "reason": wish.reason, "wish": wish.key, "force": wish.is_forced},
            )
            yield node, StandingFinding(finding=finding, first_at=wish.at, last_at=wish.at)


def actions(ledger: Ledger, snapshot: Snapshot) -> list[act.Action]:
    """What the wishes that are no repair come to."""
    wanted: list[act.Action] = []
    for node, wish in sorted(ledger.wishes.items()):
        if node not in snapshot.nodes:
            continue
        if wish.verb == "drain":
            wanted.append(act.Drain(key=f"{wish.key}:drain", node=node, reason=drain_reason(wish)))
        elif wish.verb == "return":
            wanted.append(act.ReturnToService(key=f"{wish.key}:return", node=node))
    return wanted


def drain_reason(wish: Wish) -> str:
    """The reason of a node that an operator drained: theirs, so that we leave it alone."""
    return f"{wish.reason or 'drained'} ({wish.by or 'an operator'})"


def is_forced(case: Case) -> bool:
    """Whether an operator asked for the case's repair and would not wait for jobs or limits."""
    return case.family == FAMILY and bool(case.evidence.get("force"))


def is_wished(case: Case) -> bool:
    """Whether the case follows from one of our own verbs, so that a node that somebody drained is meant all the same."""
    return case.family == FAMILY and bool(case.evidence.get("wish"))


def pause_of(node: str, ledger: Ledger, snapshot: Snapshot, now: float) -> str | None:
    """The pause that holds repairs of `node` back, as an operator reads it."""
    known = snapshot.nodes.get(node)
    scopes = ["cluster", *(f"partition:{name}" for name in (known.partitions if known else ())), f"node:{node}"]
    for scope in scopes:
        pause = ledger.pauses.get(scope)
        if pause is None or (pause.until is not None and now >= pause.until):
            continue
        what = scope.replace(":", " ")
        left = "" if pause.until is None else f", {_span(pause.until - now)} left"
        why = f" ({pause.reason})" if pause.reason else ""
        return f"repairs of {what} were paused by {pause.by or 'an operator'}{why}{left}: `nodewatch resume` ends it"
    return None


def refusal(
    verb: str, node: str, snapshot: Snapshot, ledger: Ledger, rules: Rules, now: float, *, force: bool, reason: str
) -> str | None:
    """Why a verb makes no sense for `node` now, one sentence; None when it does."""
    known = snapshot.nodes.get(node)
    if known is None:
        return f"Slurm does not know {node}: `sinfo` lists the names"
    cases = [case for case in ledger.open_cases_of(node) if case.is_admitted]
    if verb == "drain":
        if reason.lower().startswith(OWNED_PREFIX):
            return f"a reason that begins with {OWNED_PREFIX!r} is what nodewatch itself writes: choose another"
        return f"{node} is out of service already ({known.reason or 'no reason given'})" if known.is_out else None
    if verb in REPAIRS:
        if cases and not is_forced(cases[0]) and cases[0].step in _AT_WORK:
            return f"{node} is under repair already: {cases[0].case_id}, {cases[0].step.value}"
        if verb == "replace":
            group = rules.group_of(node)
            if group is None or not group.launch_template:
                return f"{node} is in no group with a launch_template: set one in controller.toml"
        elif rules.group_of(node) is None:
            return f"{node} is in no group of controller.toml, so it is not ours to repair"
        return None
    if not known.is_out and not known.is_down:
        return f"{node} is in service already"
    if cases and cases[0].step in _AT_WORK:
        return f"{node} is under repair: {cases[0].case_id}, {cases[0].step.value}; wait for it"
    view = snapshot.agents.get(node)
    if force:
        return None
    if view is None or view.verdict is None or is_silent(view, rules, now):
        return f"nothing is known of the health of {node}, its agent is silent: --force returns it all the same"
    worst = view.verdict.worst
    if worst is not None and worst.finding.severity >= Severity.DEGRADED:
        return (
            f"{worst.finding.fault} on {worst.finding.subject} stands against {node}: --force returns it all the same"
        )
    return None


def affected_jobs(nodes: Iterable[str], snapshot: Snapshot, ledger: Ledger) -> list[dict[str, object]]:
    """The jobs on `nodes`, each once: id, user, its nodes among them, and whether it is marked --auto-resume."""
    found: dict[int, dict[str, object]] = {}
    for node in nodes:
        for job in snapshot.jobs_on(node):
            row = found.setdefault(
                job.job_id,
                {
                    "job": job.job_id,
                    "user": job.user,
                    "name": job.name,
                    "nodes": [],
                    "auto_resume": job.job_id in ledger.jobs,
                },
            )
            on = row["nodes"]
            assert isinstance(on, list)
            on.append(node)
    return [found[job_id] for job_id in sorted(found)]


def tried_on_copy(ledger: Ledger, kind: str, data: Mapping[str, object], now: float) -> Ledger:
    """The ledger as it would be after the record: nothing is written."""
    handlers = {"operator_asked": asked, "paused": paused, "resumed": resumed}
    return handlers[kind](ledger, Record(number=0, at=now, kind=kind, data=data))


def _span(seconds: float) -> str:
    if seconds >= 7200:
        return f"{seconds / 3600:.0f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"
