"""Many records folded at once are what they are one by one, whatever is forgotten on the way."""

from __future__ import annotations

import dataclasses

from hypothesis import given, settings
from hypothesis import strategies as st

from nodewatch.model import actions as act
from nodewatch.model.health import Severity
from nodewatch.model.ledger import Case, Ledger, Rung, Step
from nodewatch.model.records import Record
from nodewatch.policy.draft import Limits
from nodewatch.policy.fold import case_to_json, fold

LIMITS = Limits(closed_cases=2, jobs=3, actions=4, check_runs=2)
nodes = st.sampled_from(["n1", "n2", "n3"])
times = st.sampled_from([1.0, 2.0, 3.0, 3.5])
case_ids = st.sampled_from(["n1.gpu.1", "n1.gpu.2", "n2.gpu.1", "n3.efa.1", "n1.gpu.1:x"])
jobs = st.integers(1, 6)


def case(case_id: str, step: Step, attempt: int, rung: Rung, at: float) -> Case:
    node, family, _ = case_id.split(".")
    return Case(
        case_id=case_id,
        node=node,
        family=family,
        fault=f"{family}.x",
        subject="s",
        severity=Severity.FATAL,
        rung=rung,
        step=step,
        opened_at=1.0,
        step_at=at,
        attempt=attempt,
    )


actions = st.one_of(
    st.builds(lambda c, n: act.Drain(key=f"{c}:drain:{n}", node="n1", reason=""), case_ids, st.integers(1, 2)),
    st.builds(
        lambda c, n: act.Launch(key=f"{c}:launch:{n}", node="n1", launch_template="t"), case_ids, st.integers(1, 2)
    ),
    st.builds(lambda n, t: act.HoldSpare(key=f"spare:{n}:{t}", node=n, reason=""), nodes, st.integers(1, 3)),
    st.builds(
        lambda j: act.Expedite(key=f"job:{j}:x", job_id=j, priority=1, exclude=("n9",), ours=("n9",), comment=""), jobs
    ),
    st.builds(lambda n: act.DeepCheck(key=f"sweep:{n}:1", node=n, suite="deep", why="sweep"), nodes),
    st.builds(lambda n, t: act.ReturnToService(key=f"operator:{n}:{t:.3f}:return", node=n), nodes, times),
)
events = st.one_of(
    st.builds(lambda n: ("hello", {"node": n, "boot_id": "b", "instance_id": "i"}), nodes),
    st.builds(
        lambda *c: ("case", {"case": case_to_json(case(*c))}),
        case_ids,
        st.sampled_from(Step),
        st.integers(1, 2),
        st.sampled_from(Rung),
        times,
    ),
    actions.map(lambda a: ("intended", {"action": act.to_json(a)})),
    actions.map(lambda a: ("done", {"key": a.key, "action": act.to_json(a), "result": {}})),
    actions.map(lambda a: ("failed", {"key": a.key, "error": "no"})),
    st.builds(
        lambda j, r: ("job_started", {"job_id": j, "restart_count": r, "auto_resume": "3"}), jobs, st.integers(0, 1)
    ),
    st.builds(lambda j, r: ("job_ended", {"job_id": j, "restart_count": r}), jobs, st.integers(0, 1)),
    st.builds(
        lambda j, r, again: (
            "judged",
            {"job_id": j, "restart_count": r, "restarts": again, "text": "", "cause": "unknown"},
        ),
        jobs,
        st.integers(0, 1),
        st.booleans(),
    ),
    st.builds(lambda c, p: ("validated", {"key": f"{c}:validate", "node": "n1", "passed": p}), case_ids, st.booleans()),
    st.builds(lambda n: ("validated", {"key": f"sweep:{n}:1", "node": n, "passed": True, "suite": "deep"}), nodes),
    st.builds(lambda n: ("operator_asked", {"verb": "return", "nodes": [n]}), nodes),
    st.builds(lambda n: ("check_asked", {"nodes": [n], "suite": "deep"}), nodes),
    st.just(("of_a_later_release", {})),
)
histories = st.lists(st.tuples(times, events), max_size=60).map(
    lambda told: [Record(number=n, at=at, kind=kind, data=data) for n, (at, (kind, data)) in enumerate(told, 1)]
)


@settings(max_examples=300, deadline=None)
@given(histories)
def test_all_at_once_is_the_same_as_one_by_one(records: list[Record]) -> None:
    once = fold(Ledger(), records, LIMITS)
    one_by_one = Ledger()
    for record in records:
        one_by_one = fold(one_by_one, [record], LIMITS)
    for field in (field for field in dataclasses.fields(Ledger) if field.init):
        ours, theirs = getattr(once, field.name), getattr(one_by_one, field.name)
        assert ours == theirs, field.name
        if isinstance(ours, dict):
            assert list(ours) == list(theirs), f"the order of {field.name} decides what is forgotten next"
    assert len(once.jobs) <= LIMITS.jobs
    assert sum(not known.is_open for known in once.cases.values()) <= LIMITS.closed_cases


@settings(max_examples=100, deadline=None)
@given(histories, st.integers(0, 60))
def test_a_ledger_that_was_handed_out_does_not_change(records: list[Record], cut: int) -> None:
    before = fold(Ledger(), records[:cut], LIMITS)
    values = {field.name: getattr(before, field.name) for field in dataclasses.fields(Ledger) if field.init}
    kept = Ledger(**{name: dict(value) if isinstance(value, dict) else value for name, value in values.items()})
    fold(before, records[cut:], LIMITS)
    assert before == kept


def test_what_was_begun_and_has_no_outcome_is_not_forgotten() -> None:
    begun = [
        Record(
            number=n,
            at=float(n),
            kind="intended",
            data={"action": act.to_json(act.Drain(key=f"c{n}:drain", node="n", reason=""))},
        )
        for n in range(1, 10)
    ]
    assert len(fold(Ledger(), begun, LIMITS).actions) == 9


def test_the_oldest_goes_first() -> None:
    def settled(n: int, at: float) -> list[Record]:
        action = act.to_json(act.Drain(key=f"c{n}:drain", node="n", reason=""))
        return [
            Record(number=2 * n, at=at, kind="intended", data={"action": action}),
            Record(number=2 * n + 1, at=at, kind="done", data={"key": action["key"], "result": {}}),
        ]

    records = [
        each for n, at in ((1, 5.0), (2, 1.0), (3, 4.0), (4, 3.0), (5, 9.0), (6, 9.0)) for each in settled(n, at)
    ]
    assert list(fold(Ledger(), records, LIMITS).actions) == ["c1:drain", "c3:drain", "c5:drain", "c6:drain"]
