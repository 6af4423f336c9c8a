"""The planner: what is known, and the time, in; cases, judgements, actions and reasons out. No clock, no I/O, no chance.

It is level-triggered: it looks at what is, not at what changed, so that a lost event, a restart or a second call in the same
instant changes nothing. Iteration is sorted, so that the same input gives the same plan to the letter.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping

from nodewatch.model import actions as act
from nodewatch.model.cluster import AgentView, SlurmNode, Snapshot
from nodewatch.model.health import Finding, NodeState, Remedy, Severity, StandingFinding
from nodewatch.model.ledger import Case, Ledger, MarkedJob, Rung, Step
from nodewatch.model.plan import Held, Judgement, Plan
from nodewatch.policy import (
    budgets,
    deep_checks,
    guards,
    job_scene,
    pairs,
    repair,
    requeue,
    scheduled,
    spares,
    turned_away,
    unclear,
    verbs,
    wishes,
)
from nodewatch.policy.attempts import due
from nodewatch.policy.case_steps import Scene
from nodewatch.policy.history import identities
from nodewatch.policy.ladder import opening_rung
from nodewatch.policy.lost import is_silent, lost_nodes
from nodewatch.policy.past import Past
from nodewatch.policy.rules import Rules

Faults = Mapping[tuple[str, str], StandingFinding]
"""The worst actionable finding by (node, fault family)."""


def plan(snapshot: Snapshot, ledger: Ledger, rules: Rules, now: float) -> Plan:
    """What to do at `now`. Applying it and planning again in the same instant gives nothing new."""
    if snapshot.slurm_error is not None:
        why = f"Slurm could not be read ({snapshot.slurm_error}): nothing is done on half a picture"
        return Plan(held=(Held(subject="cluster", why=why),))
    faults = _faults(snapshot, ledger, rules, now)
    held: list[Held] = []
    cases: dict[str, Case] = {case.case_id: case for case in ledger.open_cases}
    answers: list[act.Action] = []
    for item in unclear.look(snapshot, ledger, rules, now):
        if isinstance(item, Held):
            held.append(item)
        else:
            answers.append(item)
    _update_open(cases, faults, rules, now)
    _open_new(cases, faults, snapshot, ledger, rules, now, held)
    # A storm is told by when and where cases were opened, which nothing below changes: once for each family is enough.
    families = sorted({case.family for case in cases.values()})
    storms = {name: guards.storming(name, ledger, tuple(cases.values()), rules, now) for name in families}
    lasting = guards.lasting_storms({**ledger.cases, **cases}.values(), rules, now)
    storm_of = {
        case_id: (storms[case.family] or lasting.get(case_id)) if guards.may_be_storm(case) else None
        for case_id, case in cases.items()
    }
    _admit(cases, faults, storm_of, snapshot, ledger, rules, now, held)
    actions = _advance(cases, storm_of, snapshot, ledger, rules, now, held)
    job_actions: list[act.Action] = []
    judgements = _jobs(cases, snapshot, ledger, rules, now, job_actions, held)
    # Slurm answers in milliseconds and EC2 in seconds: a job does not wait for a machine's repair to be asked for.
    actions = [
        *(a for a in actions if not isinstance(a, act.MACHINE)),
        *job_actions,
        *(a for a in actions if isinstance(a, act.MACHINE)),
    ]
    actions += requeue.free_kept(ledger, rules, now)
    actions += [a for a in wishes.actions(ledger, snapshot) if due(a, ledger, rules, now)]
    actions += [a for a in spares.top_up(snapshot, ledger, rules, now) if due(a, ledger, rules, now)]
    open_now = [case for case in cases.values() if case.is_open]
    for told in turned_away.returns(open_now, {node for node, _ in faults}, snapshot, ledger, rules, now):
        if isinstance(told, Held):
            held.append(told)
        elif due(told, ledger, rules, now):
            actions.append(told)
    actions += answers
    checks = deep_checks.wanted(snapshot, ledger, cases.values(), rules, now)
    actions += checks.by_itself
    held += checks.held
    brake = guards.observing(rules)
    if brake is not None:
        held += [Held(subject=_subject(action), why=f"{brake}; would {act.describe(action)}") for action in actions]
        actions = []
    actions += checks.for_operators
    changed = [case for case_id, case in cases.items() if _is_news(case, ledger.cases.get(case_id))]
    changed.sort(key=lambda case: case.case_id)
    return Plan(cases=tuple(changed), judgements=tuple(judgements), actions=tuple(actions), held=tuple(held))


def _is_news(case: Case, before: Case | None) -> bool:
    # The same object first: to compare twenty fields of each case of a storm takes a while.
    return case is not before and case != before


def validation_requests(node: str, ledger: Ledger, rules: Rules, now: float) -> tuple[tuple[str, str], ...]:
    """(key, suite) of the checks that the agent of `node` is asked to run now. They follow from the ledger alone, so a
    restarted controller asks again by itself."""
    cases = tuple(
        (repair.validation_key(case, ledger), "deep")
        for case in ledger.open_cases_of(node)
        if case.step is Step.VALIDATING
    )
    return cases + deep_checks.requests(node, ledger, rules, now)


def reset_requests(node: str, ledger: Ledger) -> tuple[str, ...]:
    """The keys of the GPU resets that the agent of `node` owes an answer to."""
    return tuple(
        repair.reset_key(case)
        for case in ledger.open_cases_of(node)
        if case.step is Step.RESETTING
        and ledger.is_done(repair.reset_key(case))
        and repair.reset_key(case) not in ledger.resets
    )


def _faults(snapshot: Snapshot, ledger: Ledger, rules: Rules, now: float) -> Faults:
    worst: dict[tuple[str, str], StandingFinding] = {}

    def take(node: str, standing: StandingFinding) -> None:
        if standing.finding.severity < Severity.DEGRADED:
            return
        key = (node, standing.finding.family)
        if key not in worst or _weight(standing, rules, now) > _weight(worst[key], rules, now):
            worst[key] = standing

    # One pass over all agents, and sorted once they are few: of most of a hundred thousand there is nothing to tell.
    limit_s = rules.agent_silence_s
    views = [v for v in snapshot.agents.values() if now - v.heard_at >= limit_s or (v.verdict and v.verdict.findings)]
    views.sort(key=lambda view: view.node)
    for view in views:
        if view.verdict is not None and not is_silent(view, rules, now):
            for standing in view.verdict.findings:
                take(view.node, standing)
    for name, standing in _of_the_cloud(snapshot, rules, now):
        take(name, standing)
    for name, standing in lost_nodes(views, snapshot, rules, now):
        take(name, standing)
    if ledger.pair_culprits:
        for name, standing in pairs.standing(snapshot, ledger):
            take(name, standing)
    for name, standing in wishes.findings(ledger):
        take(name, standing)
    for node in snapshot.with_reason:
        rung = None if node.is_ours else verbs.asked(node)
        if rung is not None:
            take(node.name, _wish(node, rung, now))
    return worst


def _of_the_cloud(snapshot: Snapshot, rules: Rules, now: float) -> Iterator[tuple[str, StandingFinding]]:
    """(node, finding) of what EC2 says of the machine that bears the node's name now."""
    for instance_id, findings in sorted(snapshot.cloud.items()):
        instance = snapshot.instances.get(instance_id)
        view = snapshot.agents.get(instance.node) if instance is not None else None
        if instance is None or not instance.node or not instance.is_alive:
            continue
        if view is not None and view.instance_id not in ("", instance_id):
            # The name has another machine already: what EC2 says of the old one is no fault of the node.
            continue
        is_heard = view is not None and not is_silent(view, rules, now)
        for standing in findings:
            # EC2 says for minutes after a boot that it does not reach a machine whose agent we hear: we know better.
            if not (is_heard and standing.finding.fault == "ec2.instance_impaired"):
                yield instance.node, standing


def _wish(node: SlurmNode, rung: Rung, now: float) -> StandingFinding:
    """An operator's wish, as a finding: jobs may finish, as HyperPod's users know it."""
    finding = Finding(
        fault=f"{verbs.FAMILY}.{rung.word}",
        subject=node.name,
        severity=Severity.DEGRADED,
        remedy=Remedy[rung.name],
        evidence={"reason": node.reason},
    )
    return StandingFinding(finding=finding, first_at=now, last_at=now)


def _weight(standing: StandingFinding, rules: Rules, now: float) -> tuple[bool, int, int, float, tuple[str, str]]:
    finding = standing.finding
    rung = opening_rung(finding, "", (), rules, 0.0)
    # A retirement in two weeks must not hide what is wrong today.
    is_now = not scheduled.is_far(finding, rules, now)
    return (is_now, finding.severity, rung, -standing.first_at, finding.identity)


def _update_open(cases: dict[str, Case], faults: Faults, rules: Rules, now: float) -> None:
    """A worse finding of the same family joins the case while its machine has not been touched; so does the new time of an
    event, and what is wrong now takes the place of an event that is far."""
    for case_id, case in cases.items():
        standing = faults.get((case.node, case.family))
        if standing is None or case.step not in (Step.HELD, Step.DRAINING) or case.tried:
            continue
        finding = standing.finding
        rung = opening_rung(finding, case.node, (), rules, 0.0)
        severity = finding.severity
        is_moved = scheduled.is_moved(case, finding)
        gives_way = (
            case.step is Step.HELD and scheduled.is_far(case, rules, now) and not scheduled.is_same(case, finding)
        )
        if not gives_way:
            rung, severity = max(case.rung, rung), max(case.severity, severity)
        if is_moved or gives_way or rung > case.rung or severity > case.severity:
            cases[case_id] = dataclasses.replace(
                case,
                rung=rung,
                severity=severity,
                fault=finding.fault,
                subject=finding.subject,
                evidence=dict(finding.evidence),
            )


def _open_new(
    cases: dict[str, Case],
    faults: Faults,
    snapshot: Snapshot,
    ledger: Ledger,
    rules: Rules,
    now: float,
    held: list[Held],
) -> None:
    known = {(case.node, case.family) for case in cases.values()}
    past: Past | None = None
    # A machine under repair is expected to be silent; the repair has deadlines of its own.
    under_repair = {case.node for case in cases.values() if case.is_out}
    for (node, family), standing in sorted(faults.items()):
        if (node, family) in known or (family == "node" and node in under_repair):
            continue
        finding = standing.finding
        view = snapshot.agents.get(node)
        instance = snapshot.instance_of(node)
        machine = view.instance_id if view and view.instance_id else (instance.instance_id if instance else "")
        past = past or Past(ledger.cases.values())
        history = past.about(node, identities(machine, finding.subject, finding.evidence))
        ended = _ended_on_same_machine(node, standing, view, history)
        if ended is not None:
            held.append(Held(subject=node, why=f"{finding.fault} stands, but {ended.why}", case_id=ended.case_id))
            continue
        case_id = _new_id(node, family, now, ledger)
        cases[case_id] = Case(
            case_id=case_id,
            node=node,
            family=family,
            fault=finding.fault,
            subject=finding.subject,
            severity=finding.severity,
            rung=opening_rung(finding, node, history, rules, now, instance=machine),
            step=Step.HELD,
            opened_at=now,
            step_at=now,
            fault_at=standing.first_at,
            old_instance=machine,
            old_hardware=_hardware(node, machine, ledger),
            old_boot=view.boot_id if view else "",
            old_slurmd=snapshot.nodes[node].slurmd_started_at if node in snapshot.nodes else 0.0,
            was_spare=snapshot.nodes[node].is_spare if node in snapshot.nodes else False,
            evidence=dict(finding.evidence),
            why=f"{finding.fault} on {finding.subject}",
        )


def _ended_on_same_machine(
    node: str, standing: StandingFinding, view: AgentView | None, history: Iterable[Case]
) -> Case | None:
    """The closed case that this very finding already had: an operator's word stands until something new is found."""
    for case in history:
        if (
            case.is_open
            or (case.node, case.family) != (node, standing.finding.family)
            # EC2's events have no beginning of their own: after a restart of ours an old one looks new.
            or (
                standing.first_at > case.step_at
                and not (case.admitted_at and scheduled.is_same(case, standing.finding))
            )
        ):
            continue
        if view is None or view.instance_id == (case.new_instance or case.old_instance):
            return case
    return None


def _hardware(node: str, machine: str, ledger: Ledger) -> tuple[str, ...]:
    known = ledger.agents.get(node)
    return known.hardware if known is not None and machine and known.instance_id == machine else ()


def _new_id(node: str, family: str, now: float, ledger: Ledger) -> str:
    stamp = int(now)
    while f"{node}.{family}.{stamp}" in ledger.cases:
        stamp += 1
    return f"{node}.{family}.{stamp}"


def _admit(
    cases: dict[str, Case],
    faults: Faults,
    storm_of: Mapping[str, str | None],
    snapshot: Snapshot,
    ledger: Ledger,
    rules: Rules,
    now: float,
    held: list[Held],
) -> None:
    occupancy = budgets.Occupancy(cases.values(), snapshot, rules)
    waiting = sorted((c for c in cases.values() if c.step is Step.HELD), key=lambda c: (c.opened_at, c.case_id))
    for case in waiting:
        if (case.node, case.family) not in faults and _is_well(case.node, snapshot, rules, now):
            cases[case.case_id] = dataclasses.replace(
                case, step=Step.CLOSED, step_at=now, why="the fault was no longer seen before anything was done"
            )
            continue
        if (case.node, case.family) not in faults and case.fault == scheduled.FAULT:
            # Its agent is silent and EC2 shows the event no longer: what may be off must not drain a node.
            why: str | None = f"EC2's event of {case.node} is told by nobody now: nothing is done for it"
        else:
            why = _why_not(case, occupancy, storm_of, snapshot, ledger, rules, now)
        if why is not None:
            held.append(Held(subject=case.node, why=why, case_id=case.case_id))
            continue
        admitted = dataclasses.replace(
            case, step=Step.DRAINING, step_at=now, admitted_at=now, why=f"{case.fault} on {case.subject}"
        )
        cases[case.case_id] = admitted
        occupancy.admit(admitted)


def _why_not(
    case: Case,
    occupancy: budgets.Occupancy,
    storm_of: Mapping[str, str | None],
    snapshot: Snapshot,
    ledger: Ledger,
    rules: Rules,
    now: float,
) -> str | None:
    """The first guard that holds the case back."""
    group = rules.group_of(case.node)
    brake = guards.observing(rules)
    if brake is not None:
        return f"{brake}; would drain {case.node} and go to {case.rung.word} for {case.fault} on {case.subject}"
    reason = guards.unmanaged(case, rules) or guards.foreign(case, snapshot) or guards.in_maintenance(case, snapshot)
    if not wishes.is_forced(case):
        reason = (
            reason
            or guards.paused(case.node, ledger, snapshot, rules, now)
            or scheduled.not_yet(case, rules, now)
            or guards.unsettled(case, rules, now)
            or storm_of[case.case_id]
        )
    if reason is not None or group is None:
        return reason
    other = occupancy.admitted_on(case.node)
    if other is not None:
        return f"{case.node} is under repair already, for {other.fault} ({other.case_id})"
    if wishes.is_forced(case):
        return None
    return occupancy.why_not(case.node, group)


def _is_well(node: str, snapshot: Snapshot, rules: Rules, now: float) -> bool:
    view = snapshot.agents.get(node)
    if view is None or view.verdict is None or is_silent(view, rules, now):
        return False
    return view.verdict.state is not NodeState.UNKNOWN


def _advance(
    cases: dict[str, Case],
    storm_of: Mapping[str, str | None],
    snapshot: Snapshot,
    ledger: Ledger,
    rules: Rules,
    now: float,
    held: list[Held],
) -> list[act.Action]:
    actions: list[act.Action] = []
    refused = budgets.refused(cases.values(), ledger, rules, now)
    held_spares = spares.held_spares(snapshot, rules)
    taken: set[str] = {case.spare for case in cases.values() if case.spare and case.is_admitted}
    admitted = [case for case in cases.values() if case.is_admitted]
    for case in sorted(admitted, key=lambda case: (case.opened_at, case.case_id)):
        case_id = case.case_id
        scene = Scene(
            snapshot=snapshot,
            ledger=ledger,
            rules=rules,
            now=now,
            spares=held_spares,
            spares_taken=taken,
            storm=storm_of[case_id],
            refused=refused,
        )
        outcome = repair.advance(case, scene)
        cases[case_id] = outcome.case
        if outcome.case.spare:
            taken.add(outcome.case.spare)
        actions += outcome.actions
        held += [Held(subject=case.node, why=why, case_id=case_id) for why in outcome.held]
    return actions


def _jobs(
    cases: Mapping[str, Case],
    snapshot: Snapshot,
    ledger: Ledger,
    rules: Rules,
    now: float,
    actions: list[act.Action],
    held: list[Held],
) -> list[Judgement]:
    judgements: list[Judgement] = []
    recent = [case for case in ledger.cases.values() if now - case.step_at <= 3600 and not case.is_open]
    # One that is neither fatal nor out explains nothing: those are the thousands of a storm of something shared.
    candidates = [case for case in (*cases.values(), *recent) if case.severity >= Severity.FATAL or case.is_out]
    explaining = job_scene.Suspects(sorted(candidates, key=lambda c: (not c.is_admitted, c.opened_at, c.case_id)))
    suspected = {case.node for case in candidates if case.severity >= Severity.FATAL}
    for job in with_news(suspected, snapshot, ledger):
        decision = requeue.decide(job, explaining, snapshot, ledger, rules, now)
        if decision.judgement is not None:
            judgements.append(decision.judgement)
        actions += decision.actions
        if decision.held is not None:
            held.append(decision.held)
    for case in cases.values():
        if case.is_out and case.severity >= Severity.FATAL and case.rung >= Rung.REBOOT:
            held += requeue.interrupted_without_mark(case, snapshot, ledger)
    return judgements


def with_news(suspected: set[str], snapshot: Snapshot, ledger: Ledger) -> list[MarkedJob]:
    """The marked jobs of which anything may follow, by id.

    Left out are the thousands of which `requeue.decide` says nothing: those that Slurm has forgotten, and those that run on
    nodes none of which is `suspected`.
    """
    found = []
    for job_id in ledger.jobs.keys() & snapshot.jobs.keys():
        job = ledger.jobs[job_id]
        runs_well = job.ended_at is None and job.judged_restart < job.restart_count and suspected.isdisjoint(job.nodes)
        seen = snapshot.jobs[job_id]
        if not runs_well or seen.is_pending or job_id in ledger.hangs or seen.het_job_id is not None:
            found.append(job)
    return sorted(found, key=lambda job: job.job_id)


def _subject(action: act.Action) -> str:
    job_id = getattr(action, "job_id", None)
    return f"job {job_id}" if job_id is not None else str(getattr(action, "node", "cluster"))
