"""When a failed action is tried again, for any number of tries."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewatch.model.actions import Drain
from nodewatch.model.ledger import ActionRecord, ActionState, Ledger
from nodewatch.policy.attempts import blocked, due, wait_left
from nodewatch.policy.rules import Rules

ACTION = Drain(key="k", node="n1", reason="nodewatch: x")
RULES = Rules()
AT = 1_000_000.0


def ledger(state: ActionState, tries: int = 1, *, is_capacity: bool = False) -> Ledger:
    record = ActionRecord(action=ACTION, state=state, at=AT, tries=tries, error="refused", is_capacity=is_capacity)
    return Ledger(actions={"k": record})


@given(st.integers(1, 10**6), st.booleans(), st.floats(0, 10**5))
def test_the_wait_is_bounded_and_runs_out(tries: int, is_capacity: bool, later: float) -> None:
    known = ledger(ActionState.FAILED, tries, is_capacity=is_capacity)
    first, most = (60.0, 600.0) if is_capacity else (2.0, 60.0)
    wait = wait_left("k", known, RULES, AT)
    assert min(first, most) <= wait <= most
    left = wait_left("k", known, RULES, AT + later)
    assert left == pytest.approx(max(0.0, wait - later))
    assert due(ACTION, known, RULES, AT + later) == (left <= 0)
    assert (blocked("k", known, RULES, AT + later) is None) == (left <= 0)


@pytest.mark.parametrize(("tries", "wait"), [(1, 2), (2, 4), (3, 8), (5, 32), (6, 60), (100, 60)])
def test_it_doubles(tries: int, wait: float) -> None:
    assert wait_left("k", ledger(ActionState.FAILED, tries), RULES, AT) == wait


def test_an_action_is_begun_once() -> None:
    assert due(ACTION, Ledger(), RULES, AT)
    assert not due(ACTION, ledger(ActionState.DONE), RULES, AT + 10**9)
    assert due(ACTION, ledger(ActionState.INTENDED), RULES, AT), "a crash came between: beginning it again is safe"


def test_the_reasons() -> None:
    assert blocked("k", ledger(ActionState.FAILED), RULES, AT) == ("the last try failed (refused); trying again in 2 s")
    assert blocked("k", ledger(ActionState.FAILED, is_capacity=True), RULES, AT + 10) == (
        "EC2 has no capacity (refused); trying again in 50 s"
    )
    assert blocked("other", ledger(ActionState.FAILED), RULES, AT) is None
