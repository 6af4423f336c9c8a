"""Dataclasses through JSON and back: every field of the ledger, whatever is added to it."""

from __future__ import annotations

import dataclasses
import enum
import json
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodewatch.model.ledger import Ledger
from nodewatch.model.plain import from_plain, shape_of, to_plain
from nodewatch.policy.rules import Group, Rules

numbers = st.floats(-1e12, 1e12) | st.integers(-(2**53), 2**53).map(float)
plain_values = (
    st.none() | st.booleans() | st.integers(-99, 99) | st.text(max_size=5) | st.lists(st.integers(), max_size=2)
)


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Any value of `hint`, its tables never empty: made from the hints and not from the fields' names."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return plain_values
    if hint is float:
        return numbers
    if hint in (int, str, bool):
        return st.from_type(hint)
    if hint is type(None):
        return st.none()
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return st.sampled_from(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        hints = typing.get_type_hints(hint)
        return st.builds(
            hint, **{each.name: values(hints[each.name]) for each in dataclasses.fields(hint) if each.init}
        )
    if origin is tuple and inner[-1] is Ellipsis:
        return st.lists(values(inner[0]), min_size=1, max_size=2).map(tuple)
    if origin is tuple:
        return st.tuples(*map(values, inner))
    if origin is frozenset:
        return st.frozensets(values(inner[0]), max_size=2)
    if origin in (dict, Mapping):
        return st.dictionaries(values(inner[0]), values(inner[1]), min_size=1, max_size=2)
    return st.one_of(*map(values, inner))


@settings(max_examples=60, deadline=None)
@given(values(Ledger))
def test_every_field_of_the_ledger_comes_back(ledger: Ledger) -> None:
    plain = json.loads(json.dumps(to_plain(ledger)))
    assert set(plain) == {each.name for each in dataclasses.fields(Ledger) if each.init}
    again = from_plain(Ledger, plain)
    for each in dataclasses.fields(Ledger):
        assert getattr(again, each.name) == getattr(ledger, each.name), each.name
    # What is forgotten first depends on the order, too.
    assert list(again.actions) == list(ledger.actions)


def test_an_empty_ledger_comes_back() -> None:
    assert from_plain(Ledger, json.loads(json.dumps(to_plain(Ledger())))) == Ledger()


def test_the_rules_come_back() -> None:
    group = Group(name="g", nodes=("n1", "n[2-9]*"), partition="p", spares=1)
    rules = Rules(mode="act", groups=(group,))
    again = from_plain(Rules, json.loads(json.dumps(to_plain(rules))))
    assert again == rules
    assert again.group_of("n1") == group


@dataclass(frozen=True, slots=True, kw_only=True)
class Small:
    needed: int
    given: float = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Larger:
    needed: int
    given: float = 2.0
    more: Mapping[str, Small] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Odd:
    what: set[int]


def test_a_field_of_a_later_release_is_passed_over_and_one_of_an_earlier_has_its_default() -> None:
    assert from_plain(Small, {"needed": 1, "of_a_later_release": {}}) == Small(needed=1)
    assert from_plain(Larger, to_plain(Small(needed=1))) == Larger(needed=1)


@pytest.mark.parametrize("data", [{}, {"given": 1.0}, [], None, 7, {"needed": "x"}, {"needed": None}])
def test_what_is_none_is_an_error(data: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        from_plain(Small, data)


def test_a_type_that_cannot_be_carried_is_said() -> None:
    with pytest.raises(TypeError, match="cannot be carried as JSON"):
        to_plain(Odd(what={1}))


def test_another_field_is_another_shape() -> None:
    assert shape_of(Small) != shape_of(Larger)
    assert "Small.needed" in shape_of(Larger), "fields of fields count"
    assert "Case.evidence" in shape_of(Ledger)
    assert "Step: HELD" in shape_of(Ledger)
