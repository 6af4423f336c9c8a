"""The ledger as a pure fold over journal records: the same records give the same memory, on any machine, at any time."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from nodewatch.model import actions as act
from nodewatch.model.health import Finding, Severity, severity_of
from nodewatch.model.heartbeats import Hang
from nodewatch.model.ledger import (
    ActionRecord,
    ActionState,
    Case,
    CheckRun,
    CheckWish,
    KnownAgent,
    Ledger,
    Rung,
    Step,
    Tested,
    TurnedAway,
    Validated,
)
from nodewatch.model.pairs import Culprit, PairJudgement, PairResult, PairRun, PairTest
from nodewatch.model.plain import from_plain
from nodewatch.model.records import Record
from nodewatch.policy import job_memory, wishes
from nodewatch.policy.draft import LIMITS, Draft, Limits
from nodewatch.policy.rules import MOST_REPLACEMENTS

_CHECK_RUNS_KEPT = LIMITS.check_runs
_PAIR_TESTS_KEPT = 20
_DAY_S = 86400.0
_REPLACEMENTS_KEPT = MOST_REPLACEMENTS + 1
_HANGS_KEPT = 500
_TIMES_KEPT = 50
_CAUSE = re.compile(r"nodewatch: ([a-z0-9_]+)\.")
"""The fault family in the sentence of an agent that turns a job away (policy/verdicts.py)."""
_KEEPS_OUT = frozenset({Severity.DEGRADED.word, Severity.FATAL.word})


_CASE_FIELDS = frozenset(field.name for field in dataclasses.fields(Case))


def fold(ledger: Ledger, records: Iterable[Record], limits: Limits = LIMITS) -> Ledger:
    """`ledger` after `records`; kinds that carry no memory are passed over.

    Many records at once are folded in about the same time each, whatever has been remembered by then.
    """
    draft = Draft(ledger, limits)
    for record in records:
        fold_into(draft, record)
    return draft.ledger()


def fold_into(draft: Draft, record: Record) -> None:
    """One record into a ledger under construction."""
    often = _OFTEN.get(record.kind)
    if often is not None:
        often(draft, record)
        return
    handler = _HANDLERS.get(record.kind)
    if handler is not None:
        draft.replaced_by(handler(draft.ledger(), record))


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
    values = {name: value for name, value in data.items() if name in _CASE_FIELDS}
    values["severity"] = severity_of(values["severity"]) if isinstance(values["severity"], str) else Severity.FATAL
    values["rung"] = Rung[values["rung"].upper()]
    values["step"] = Step(values["step"])
    values["tried"] = tuple(Rung[word.upper()] for word in values.get("tried", ()))
    values["old_hardware"] = tuple(values.get("old_hardware", ()))
    return Case(**values)


def _agent(draft: Draft, record: Record) -> None:
    node, instance = str(record.data["node"]), str(record.data.get("instance_id", ""))
    before = draft.agents.get(node)
    told = record.data.get("hardware")
    hardware = tuple(str(item)[:80] for item in told[:64]) if isinstance(told, list) else ()
    if before is not None and before.instance_id == instance and instance:
        # Another boot of the same machine, whose driver misses a GPU or all of them: the hardware is what it was.
        hardware = tuple(dict.fromkeys((*before.hardware, *hardware)))[:128] if hardware else before.hardware
    if record.kind == "hello":
        bootstrap = str(record.data.get("bootstrap") or "")[:300]
    else:
        bootstrap = before.bootstrap if before is not None and before.instance_id == instance else ""
    known = KnownAgent(
        boot_id=str(record.data.get("boot_id", "")),
        instance_id=instance,
        heard_at=record.at,
        hardware=hardware,
        bootstrap=bootstrap,
    )
    draft.table("agents")[node] = known


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


def _gpu_reset(ledger: Ledger, record: Record) -> Ledger:
    key = str(record.data["key"])
    case = ledger.cases.get(key.partition(":")[0])
    if case is None or not case.is_open:
        return ledger
    outcome = (record.data.get("ok") is True, str(record.data.get("said") or "it gave no reason")[:500])
    return dataclasses.replace(ledger, resets={**ledger.resets, key: outcome})


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


def _pairs_asked(ledger: Ledger, record: Record) -> Ledger:
    key = f"pairs:{record.number}"
    nodes = tuple(str(node) for node in record.data["nodes"])
    tests = {**ledger.pair_tests, key: PairTest(key=key, nodes=nodes, at=record.at, by=str(record.data["by"]))}
    ended = [test for test in tests.values() if not test.is_open]
    if len(ended) > _PAIR_TESTS_KEPT:
        del tests[min(ended, key=lambda test: (test.at, test.key)).key]
    return dataclasses.replace(ledger, pair_tests=tests)


def _pair_ran(ledger: Ledger, record: Record) -> Ledger:
    run = PairRun.from_json(record.data, record.at)
    if run.result is PairResult.GOOD:
        culprits = {node: known for node, known in ledger.pair_culprits.items() if node not in run.nodes}
        ledger = dataclasses.replace(ledger, pair_culprits=culprits)
    test = ledger.pair_tests.get(str(record.data["key"]))
    if test is None:
        return ledger
    runs = test.runs
    if run.result is not PairResult.GAVE_WAY:
        runs = (*runs, run)
    return _with_pair_test(ledger, dataclasses.replace(test, runs=runs))


def _pairs_judged(ledger: Ledger, record: Record) -> Ledger:
    test = ledger.pair_tests.get(str(record.data["key"]))
    if test is None:
        return ledger
    named = {str(item["node"]): item for item in record.data["culprits"]}
    findings = {node: Finding.from_json(item["finding"]) for node, item in named.items()}
    judgement = PairJudgement(
        culprits=findings,
        good=tuple(record.data["good"]),
        untold=tuple(record.data["untold"]),
        why=str(record.data["why"]),
    )
    culprits = {
        node: Culprit(node=node, machine=str(item["machine"]), finding=findings[node], at=record.at)
        for node, item in named.items()
    }
    ledger = dataclasses.replace(ledger, pair_culprits={**ledger.pair_culprits, **culprits})
    return _with_pair_test(ledger, dataclasses.replace(test, judgement=judgement, ended_at=record.at))


def _pairs_withdrawn(ledger: Ledger, record: Record) -> Ledger:
    for key in record.data["keys"]:
        test = ledger.pair_tests.get(str(key))
        if test is not None and test.is_open:
            ledger = _with_pair_test(ledger, dataclasses.replace(test, is_withdrawn=True, ended_at=record.at))
    return ledger


def _with_pair_test(ledger: Ledger, test: PairTest) -> Ledger:
    return dataclasses.replace(ledger, pair_tests={**ledger.pair_tests, test.key: test})


def _hang_judged(ledger: Ledger, record: Record) -> Ledger:
    hang = from_plain(Hang, record.data["hang"])
    # Of those that ended by themselves nobody hears any more: the oldest go.
    kept = sorted(ledger.hangs.values(), key=lambda known: known.at)[-_HANGS_KEPT + 1 :]
    return dataclasses.replace(ledger, hangs={**{known.job_id: known for known in kept}, hang.job_id: hang})


def _hang_over(ledger: Ledger, record: Record) -> Ledger:
    left = {job_id: hang for job_id, hang in ledger.hangs.items() if job_id != int(record.data["job_id"])}
    return dataclasses.replace(ledger, hangs=left)


def _job_started(draft: Draft, record: Record) -> None:
    budget = record.data.get("auto_resume")
    if budget is None or budget == "off":
        return
    known = draft.jobs.get(int(record.data["job_id"]))
    draft.put_job(job_memory.started(known, record, str(budget)))


def _job_ended(draft: Draft, record: Record) -> None:
    known = draft.jobs.get(int(record.data["job_id"]))
    if known is not None and int(record.data.get("restart_count") or 0) == known.restart_count:
        draft.put_job(job_memory.ended(known, record))


def _went_on(draft: Draft, record: Record) -> None:
    known = draft.jobs.get(int(record.data["job_id"]))
    if known is not None:
        draft.put_job(job_memory.went_on(known, record))


def _judged(draft: Draft, record: Record) -> None:
    known = draft.jobs.get(int(record.data["job_id"]))
    if known is not None:
        draft.put_job(job_memory.judged(known, record))


def _job_witness(draft: Draft, record: Record) -> None:
    job_id = record.data.get("job_id")
    known = draft.jobs.get(job_id) if isinstance(job_id, int) else None
    if known is not None:
        draft.put_job(job_memory.witnessed(known, record))


def _case(draft: Draft, record: Record) -> None:
    case = case_from_json(record.data["case"])
    before = draft.cases.get(case.case_id)
    draft.put_case(case)
    if case.node in draft.turned_away:
        # Kept here: a storm over two thousand nodes has the closed cases of before forgotten.
        away = draft.turned_away[case.node]
        draft.table("turned_away")[case.node] = away.with_family(case.family, record.at)
    failed = draft.failed_replacements
    if before is not None and case.attempt > before.attempt and before.rung is Rung.REPLACE:
        failed += 1
    if case.step is Step.WATCHING and case.rung is Rung.REPLACE:
        failed = 0
    if failed != draft.failed_replacements:
        draft.set(failed_replacements=failed)
    if not case.is_open and case.node in draft.wishes:
        draft.replaced_by(wishes.settled_by_case(draft.ledger(), case))


def _intended(draft: Draft, record: Record) -> None:
    action = act.from_json(record.data["action"])
    before = draft.actions.get(action.key)
    tries = 1 if before is None else before.tries + 1
    draft.put_action(ActionRecord(action=action, state=ActionState.INTENDED, at=record.at, tries=tries))


def _done(draft: Draft, record: Record) -> None:
    key = str(record.data["key"])
    before = draft.actions.get(key)
    if before is None:
        return
    result = dict(record.data.get("result") or {})
    draft.put_action(dataclasses.replace(before, state=ActionState.DONE, at=record.at, result=result, error=""))
    action = before.action
    if draft.wishes:
        draft.replaced_by(wishes.settled_by_action(draft.ledger(), key))
    if isinstance(action, act.Quarantine):
        draft.table("quarantined")[action.instance_id] = action.node
    elif isinstance(action, act.Launch):
        # By time and not by number: the limit of a day holds however many machines a site may buy.
        lately = (at for at in draft.replacements if record.at - at <= _DAY_S)
        draft.set(replacements=(*lately, record.at)[-_REPLACEMENTS_KEPT:])
    elif isinstance(action, act.DeepCheck):
        draft.table("check_runs")[action.key] = CheckRun(action=action, at=record.at)
    elif isinstance(action, act.Expedite) and action.job_id in draft.jobs:
        draft.put_job(dataclasses.replace(draft.jobs[action.job_id], excluded=action.ours))
    elif isinstance(action, (act.Drain, act.ReturnToService)) and action.node in draft.turned_away:
        # Ours from now on, or back: a failed prolog of later is not the one that was remembered.
        del draft.table("turned_away")[action.node]


def _hook_denied(draft: Draft, record: Record) -> None:
    node, told = str(record.data["node"]), _CAUSE.match(str(record.data.get("reason") or ""))
    before = draft.turned_away.get(node) or TurnedAway(times=())
    now = dataclasses.replace(before, times=(*before.times, record.at)[-_TIMES_KEPT:])
    draft.table("turned_away")[node] = now.with_family(told[1] if told else "", record.at)


def _failed(draft: Draft, record: Record) -> None:
    before = draft.actions.get(str(record.data["key"]))
    if before is None:
        return
    failed = dataclasses.replace(
        before,
        state=ActionState.FAILED,
        at=record.at,
        error=str(record.data.get("error", "")),
        is_capacity=bool(record.data.get("is_capacity", False)),
        error_code=str(record.data.get("code", "")),
    )
    draft.put_action(failed)


_OFTEN: Mapping[str, Callable[[Draft, Record], None]] = {
    "hello": _agent,
    "hardware": _agent,
    "verdict": _agent,
    "job_started": _job_started,
    "job_ended": _job_ended,
    "job_witness": _job_witness,
    "judged": _judged,
    "went_on": _went_on,
    "case": _case,
    "intended": _intended,
    "done": _done,
    "failed": _failed,
    "hook_denied": _hook_denied,
}
"""Kinds of which a year has many: they write into the draft."""

_HANDLERS: Mapping[str, Callable[[Ledger, Record], Ledger]] = {
    "validated": _validated,
    "operator_asked": wishes.asked,
    "paused": wishes.paused,
    "resumed": wishes.resumed,
    "gpu_reset": _gpu_reset,
    "check_asked": _check_asked,
    "check_withdrawn": _check_withdrawn,
    "pairs_asked": _pairs_asked,
    "pair_ran": _pair_ran,
    "pairs_judged": _pairs_judged,
    "pairs_withdrawn": _pairs_withdrawn,
    "hang_judged": _hang_judged,
    "hang_over": _hang_over,
}
