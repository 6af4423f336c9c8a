"""The ledger as a pure fold over journal records: the same records give the same memory, on any machine, at any time."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from nodewatch.model import actions as act
from nodewatch.model.health import Severity, severity_of
from nodewatch.model.ledger import (
    ActionRecord,
    ActionState,
    Case,
    Cause,
    CheckRun,
    CheckWish,
    KnownAgent,
    Ledger,
    MarkedJob,
    Rung,
    Step,
    Tested,
    Validated,
)
from nodewatch.model.records import Record
from nodewatch.policy import wishes

_CLOSED_CASES_KEPT = 2000
_JOBS_KEPT = 5000
_ACTIONS_KEPT = 20000
_CHECK_RUNS_KEPT = 500
_KEEPS_OUT = frozenset({Severity.DEGRADED.word, Severity.FATAL.word})


def fold(ledger: Ledger, records: Iterable[Record]) -> Ledger:
    """`ledger` after `records`; kinds that carry no memory are passed over."""
    for record in records:
        handler = _HANDLERS.get(record.kind)
        if handler is not None:
            ledger = handler(ledger, record)
    return ledger


def case_to_json(case: Case) -> dict[str, Any]:
    """A case as the journal keeps it."""
    data = dataclasses.asdict(case)
    data["severity"] = case.severity.word
    data["rung"] = case.rung.word
    data["step"] = case.step.value
    data["tried"] = [rung.word for rung in case.tried]
    return data


def case_from_json(data: Mapping[str, Any]) -> Case:
    """The inverse of `case_to_json`."""
    names = {field.name for field in dataclasses.fields(Case)}
    values = {name: value for name, value in data.items() if name in names}
    values["severity"] = severity_of(values["severity"]) if isinstance(values["severity"], str) else Severity.FATAL
    values["rung"] = Rung[values["rung"].upper()]
    values["step"] = Step(values["step"])
    values["tried"] = tuple(Rung[word.upper()] for word in values.get("tried", ()))
    return Case(**values)


def _agent(ledger: Ledger, record: Record) -> Ledger:
    known = KnownAgent(
        boot_id=str(record.data.get("boot_id", "")),
        instance_id=str(record.data.get("instance_id", "")),
        heard_at=record.at,
    )
    return dataclasses.replace(ledger, agents={**ledger.agents, str(record.data["node"]): known})


def _validated(ledger: Ledger, record: Record) -> Ledger:
    key = str(record.data["key"])
    answer = _answer(record)
    node, instance = str(record.data.get("node", "")), str(record.data.get("instance_id", ""))
    if answer.passed is not None and record.data.get("suite") == "deep":
        tested = Tested(instance_id=instance, at=record.at, passed=answer.passed)
        ledger = dataclasses.replace(ledger, tested={**ledger.tested, node: tested})
    run = ledger.check_runs.get(key)
    if run is None:
        case = ledger.cases.get(key.partition(":")[0])
        if case is None or not case.is_open:
            return ledger
        return dataclasses.replace(ledger, validations={**ledger.validations, key: answer})
    runs = {**ledger.check_runs, key: dataclasses.replace(run, answer=answer)}
    ended = [known for known in runs.values() if known.answer is not None]
    if len(ended) > _CHECK_RUNS_KEPT:
        del runs[min(ended, key=lambda known: known.at).action.key]
    asked = ledger.check_wishes
    if not answer.gave_way_to:
        asked = {k: wish for k, wish in asked.items() if not key.startswith(f"{wish.key}.")}
    return dataclasses.replace(ledger, check_runs=runs, check_wishes=asked)


def _answer(record: Record) -> Validated:
    passed = record.data.get("passed")
    faults: list[str] = []
    doubts: list[str] = []
    results = record.data.get("results")
    # An agent wrote this: what has another shape is left out, since a record that cannot be folded stops the controller.
    for result in results if isinstance(results, list) else ():
        if not isinstance(result, Mapping):
            continue
        found = result.get("findings")
        faults += [
            f"{finding.get('fault')} on {finding.get('subject')}"
            for finding in (found if isinstance(found, list) else ())
            if isinstance(finding, Mapping) and finding.get("severity") in _KEEPS_OUT
        ]
        if result.get("status") == "unknown":
            doubts.append(f"{result.get('check')}: {result.get('error')}"[:300])
    return Validated(
        at=record.at,
        passed=passed if isinstance(passed, bool) else None,
        faults=tuple(dict.fromkeys(faults))[:20],
        doubts=tuple(doubts)[:20],
        gave_way_to=str(record.data.get("gave_way_to") or ""),
    )


def _check_asked(ledger: Ledger, record: Record) -> Ledger:
    asked = dict(ledger.check_wishes)
    for node in record.data["nodes"]:
        key = f"deep:{node}:{int(record.at)}"
        wish = CheckWish(
            key=key, node=str(node), suite=str(record.data["suite"]), at=record.at, by=str(record.data.get("by", ""))
        )
        # The newest wish for a node takes the place of an older one that waits.
        asked = {k: known for k, known in asked.items() if known.node != wish.node}
        asked[key] = wish
    return dataclasses.replace(ledger, check_wishes=asked)


def _check_withdrawn(ledger: Ledger, record: Record) -> Ledger:
    nodes = set(record.data["nodes"])
    left = {key: wish for key, wish in ledger.check_wishes.items() if wish.node not in nodes}
    return dataclasses.replace(ledger, check_wishes=left)


def _job_started(ledger: Ledger, record: Record) -> Ledger:
    budget = record.data.get("auto_resume")
    job_id = int(record.data["job_id"])
    restart = int(record.data.get("restart_count") or 0)
    if budget is None or budget == "off":
        return ledger
    known = ledger.jobs.get(job_id)
    # A job id is used again after a slurmctld wiped its state: run 0 is always a new job.
    before = (
        known
        if known is not None and restart > 0
        else MarkedJob(job_id=job_id, budget=str(budget), restart_count=0, nodes=(), started_at=0.0)
    )
    job = dataclasses.replace(
        before,
        budget=str(budget),
        restart_count=restart,
        nodes=tuple(record.data.get("node_names", ())),
        started_at=float(record.data.get("at", record.at)),
        user=str(record.data.get("user") or ""),
        partition=str(record.data.get("partition") or ""),
        ended_at=None,
        exit_code="",
    )
    return _with_job(ledger, job)


def _job_ended(ledger: Ledger, record: Record) -> Ledger:
    known = ledger.jobs.get(int(record.data["job_id"]))
    if known is None or int(record.data.get("restart_count") or 0) != known.restart_count:
        return ledger
    ended = dataclasses.replace(
        known,
        ended_at=float(record.data.get("at", record.at)),
        exit_code=str(record.data.get("exit_code") or ""),
    )
    return _with_job(ledger, ended)


def _judged(ledger: Ledger, record: Record) -> Ledger:
    known = ledger.jobs.get(int(record.data["job_id"]))
    if known is None:
        return ledger
    restarts = bool(record.data["restarts"])
    judged = dataclasses.replace(
        known,
        judged=str(record.data["text"]),
        judged_restart=int(record.data["restart_count"]),
        judged_cause=str(record.data["cause"]),
        judged_node=str(record.data.get("node", "")),
        restarts=restarts,
        # Counted when it is decided, not when it is done: a crash in between must not give the job a restart for nothing.
        requeues=known.requeues + restarts,
        unknown_requeues=known.unknown_requeues + (restarts and record.data["cause"] == Cause.UNKNOWN.value),
    )
    return _with_job(ledger, judged)


def _with_job(ledger: Ledger, job: MarkedJob) -> Ledger:
    jobs = {**ledger.jobs, job.job_id: job}
    if len(jobs) > _JOBS_KEPT:
        del jobs[min(jobs, key=lambda job_id: jobs[job_id].started_at)]
    return dataclasses.replace(ledger, jobs=jobs)


def _case(ledger: Ledger, record: Record) -> Ledger:
    case = case_from_json(record.data["case"])
    before = ledger.cases.get(case.case_id)
    cases = {**ledger.cases, case.case_id: case}
    closed = [known for known in cases.values() if not known.is_open]
    if len(closed) > _CLOSED_CASES_KEPT:
        del cases[min(closed, key=lambda known: known.step_at).case_id]
    actions = ledger.actions
    if not case.is_open:
        # Nothing asks for the actions of a closed case again; kept, they would make every fold of a long journal slower.
        prefix = f"{case.case_id}:"
        actions = {key: known for key, known in actions.items() if not key.startswith(prefix)}
        answers = {key: known for key, known in ledger.validations.items() if not key.startswith(prefix)}
        ledger = dataclasses.replace(ledger, validations=answers)
    failed = ledger.failed_replacements
    if before is not None and case.attempt > before.attempt and before.rung is Rung.REPLACE:
        failed += 1
    if case.step is Step.WATCHING and case.rung is Rung.REPLACE:
        failed = 0
    ledger = wishes.settled_by_case(ledger, case)
    return dataclasses.replace(ledger, cases=cases, actions=actions, failed_replacements=failed)


def _intended(ledger: Ledger, record: Record) -> Ledger:
    action = act.from_json(record.data["action"])
    before = ledger.actions.get(action.key)
    tries = 1 if before is None else before.tries + 1
    return _with_action(ledger, ActionRecord(action=action, state=ActionState.INTENDED, at=record.at, tries=tries))


def _done(ledger: Ledger, record: Record) -> Ledger:
    key = str(record.data["key"])
    before = ledger.actions.get(key)
    if before is None:
        return ledger
    result = dict(record.data.get("result") or {})
    ledger = _with_action(
        ledger, dataclasses.replace(before, state=ActionState.DONE, at=record.at, result=result, error="")
    )
    action = before.action
    ledger = wishes.settled_by_action(ledger, key)
    if isinstance(action, act.Launch):
        launches = (*ledger.replacements, record.at)[-100:]
        return dataclasses.replace(ledger, replacements=launches)
    if isinstance(action, act.DeepCheck):
        runs = {**ledger.check_runs, action.key: CheckRun(action=action, at=record.at)}
        return dataclasses.replace(ledger, check_runs=runs)
    if isinstance(action, act.Expedite) and action.job_id in ledger.jobs:
        return _with_job(ledger, dataclasses.replace(ledger.jobs[action.job_id], excluded=action.ours))
    return ledger


def _failed(ledger: Ledger, record: Record) -> Ledger:
    before = ledger.actions.get(str(record.data["key"]))
    if before is None:
        return ledger
    failed = dataclasses.replace(
        before,
        state=ActionState.FAILED,
        at=record.at,
        error=str(record.data.get("error", "")),
        is_capacity=bool(record.data.get("is_capacity", False)),
    )
    return _with_action(ledger, failed)


def _with_action(ledger: Ledger, record: ActionRecord) -> Ledger:
    actions = {**ledger.actions, record.action.key: record}
    if len(actions) > _ACTIONS_KEPT:
        settled = [known for known in actions.values() if known.state is not ActionState.INTENDED]
        del actions[min(settled, key=lambda known: known.at).action.key]
    return dataclasses.replace(ledger, actions=actions)


_HANDLERS = {
    "hello": _agent,
    "verdict": _agent,
    "validated": _validated,
    "operator_asked": wishes.asked,
    "paused": wishes.paused,
    "resumed": wishes.resumed,
    "check_asked": _check_asked,
    "check_withdrawn": _check_withdrawn,
    "job_started": _job_started,
    "job_ended": _job_ended,
    "judged": _judged,
    "case": _case,
    "intended": _intended,
    "done": _done,
    "failed": _failed,
}
