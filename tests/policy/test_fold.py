"""Cases through the journal's JSON and back, and the ledger as a fold that does not care how it is cut."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from nodewatch.model import actions as act
from nodewatch.model.health import Severity
from nodewatch.model.ledger import Case, Ledger, Rung, Step
from nodewatch.model.records import Record
from nodewatch.policy.fold import case_from_json, case_to_json, fold
from nodewatch.policy.guards import replacements
from nodewatch.policy.rules import Group, Rules
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


def test_launches_of_a_day_are_remembered_however_many() -> None:
    def launched(number: int, at: float) -> list[Record]:
        action = act.Launch(key=f"n1.gpu.1:replace:launch:{number}", node="n1", launch_template="t")
        data = {"action": act.to_json(action)}
        done = {"key": action.key, "result": {}}
        return [
            Record(number=2 * number, at=at, kind="intended", data=data),
            Record(number=2 * number + 1, at=at, kind="done", data=done),
        ]

    day_s = 86400.0
    records = [each for number in range(300) for each in launched(number, number * 60.0)]
    ledger = fold(Ledger(), records)
    assert len(ledger.replacements) == 300
    rules = Rules(replacements_per_hour=10_000, replacements_per_day=250)
    group = Group(name="g", nodes=("n1",), partition="p", launch_template="t")
    now = 299 * 60.0
    assert "300 replacements within the last day, the limit is 250" in str(replacements(group, ledger, rules, now))

    later = fold(ledger, launched(300, day_s + 120.0))
    assert later.replacements[0] == 120.0, "what is more than a day ago counts no longer"
