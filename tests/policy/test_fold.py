"""Cases through the journal's JSON and back, and the ledger as a fold that does not care how it is cut."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from nodewatch.model.health import Severity
from nodewatch.model.ledger import Case, Ledger, Rung, Step
from nodewatch.model.records import Record
from nodewatch.policy.fold import case_from_json, case_to_json, fold
from nodewatch.testing import World

times = st.floats(0, 4e9)
cases = st.builds(
    Case,
    case_id=st.text(min_size=1),
    severity=st.sampled_from(Severity),
    rung=st.sampled_from(Rung),
    step=st.sampled_from(Step),
    tried=st.lists(st.sampled_from(Rung), max_size=4).map(tuple),
    opened_at=times,
    step_at=times,
    fault_at=times,
    evidence=st.dictionaries(st.text(), st.integers() | st.text() | st.none(), max_size=3),
)


@given(cases)
def test_a_case_comes_back(case: Case) -> None:
    assert case_from_json(json.loads(json.dumps(case_to_json(case)))) == case


@given(cases)
def test_fields_of_a_later_release_are_passed_over(case: Case) -> None:
    assert case_from_json({**case_to_json(case), "of_a_later_release": 1}) == case


def history() -> list[Record]:
    world = World(nodes=5, spares=1)
    world.submit(nodes=3, auto_resume="3")
    world.run(seconds=10)
    world.node("n2").loses_gpu()
    world.run(minutes=4)
    return list(world.journal.records)


HISTORY = history()


def test_there_is_a_history_to_fold() -> None:
    kinds = {record.kind for record in HISTORY}
    assert {"job_started", "verdict", "case", "intended", "done", "judged", "validated"} <= kinds


@settings(max_examples=30, deadline=None)
@given(st.integers(0, len(HISTORY)))
def test_a_ledger_built_in_two_halves_is_the_same(cut: int) -> None:
    assert fold(fold(Ledger(), HISTORY[:cut]), HISTORY[cut:]) == fold(Ledger(), HISTORY)


def test_kinds_without_memory_change_nothing() -> None:
    record = Record(number=1, at=1.0, kind="of_a_later_release", data={})
    assert fold(Ledger(), [record]) == Ledger()
