"""Actions: each type through the journal's JSON and back, and as an operator reads it."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any, get_args, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewatch.model import actions as act

KINDS: tuple[Any, ...] = get_args(act.Action)


def any_of(kind: Any) -> st.SearchStrategy[act.Action]:
    """Any action of a type. What evidence holds is JSON, which its type does not say."""
    given_fields = (
        {"evidence": st.just({"case": {"fault": "gpu.lost"}})} if "evidence" in kind.__dataclass_fields__ else {}
    )
    # A time that is no number is unequal to itself.
    given_fields |= {name: st.floats(allow_nan=False, allow_infinity=False) for name in ("since",)}
    made: st.SearchStrategy[act.Action] = st.builds(
        kind, **{f.name: given_fields.get(f.name, st.from_type(get_type_hints(kind)[f.name])) for f in fields(kind)}
    )
    return made


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_action_survives_the_journal(kind: Any) -> None:
    @given(any_of(kind))
    def check(action: act.Action) -> None:
        data = json.loads(json.dumps(act.to_json(action)))
        assert act.from_json(data) == action
        assert data["action"] == act.word_of(action)
        assert act.describe(action)

    check()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_fields_of_a_later_release_are_passed_over(kind: Any) -> None:
    @given(any_of(kind))
    def check(action: act.Action) -> None:
        assert act.from_json({**act.to_json(action), "of_a_later_release": 1}) == action

    check()


def test_each_action_has_its_own_word() -> None:
    words = {act.word_of(build(kind)) for kind in KINDS}
    assert len(words) == len(KINDS)


def build(kind: Any) -> act.Action:
    values = {"key": "k", "node": "n", "reason": "r", "job_id": 1, "name": "x", "nodes": (), "minutes": 1, "ours": ()}
    values |= {"stands_in_for": "b", "cause": "unknown", "priority": 1, "exclude": (), "comment": "", "address": "a"}
    values |= {"launch_template": "t", "instance_id": "i", "was": "w", "suite": "deep", "why": "sweep"}
    values |= {"case_id": "c", "bucket": "b", "reason_code": "other", "text": "t"}
    action: act.Action = kind(**{name: values[name] for name in kind.__dataclass_fields__ if name in values})
    return action


@pytest.mark.parametrize(
    ("data", "error"),
    [
        ({"action": "explode", "key": "k"}, KeyError),
        ({"key": "k"}, KeyError),
        ({"action": "drain", "key": "k"}, TypeError),
    ],
)
def test_what_is_no_action_is_refused(data: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        act.from_json(data)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_only_what_ends_work_is_destructive(kind: Any) -> None:
    assert (kind in act.DESTRUCTIVE) == (
        kind.__name__
        in {
            "MarkDown",
            "Reboot",
            "ResetGpu",
            "Terminate",
            "Quarantine",
            "RebootInstance",
        }
    )
