"""Which reasons are answered, and what the answer is; see tests/scenarios/test_operator.py for how it is written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewatch.model.actions import AnswerReason
from nodewatch.model.cluster import SlurmNode, Snapshot
from nodewatch.model.ledger import Ledger
from nodewatch.policy import unclear, verbs
from nodewatch.policy.rules import Group, Rules

RULES = Rules(mode="act", groups=(Group(name="compute", nodes=("n1",), partition="train"),))


def node(reason: str, *states: str, name: str = "n1") -> SlurmNode:
    return SlurmNode(name=name, address="10.0.0.1", states=frozenset(states or ("IDLE", "DRAIN")), reason=reason)


def answers(known: SlurmNode) -> list[str]:
    told = unclear.look(Snapshot(taken_at=0.0, nodes={known.name: known}), Ledger(), RULES, 0.0)
    return [item.reason for item in told if isinstance(item, AnswerReason)]


@pytest.mark.parametrize("states", [("IDLE", "DRAIN"), ("IDLE", "FAIL"), ("DOWN",), ("ALLOCATED", "DRAIN")])
def test_a_node_out_of_service_is_answered(states: tuple[str, ...]) -> None:
    assert answers(node("Action: Replce", *states)) == [
        "Action: Replce [nodewatch: not understood; type Action:Replace or Action:Reboot]"
    ]


@pytest.mark.parametrize(
    "known",
    [
        pytest.param(node("Action: Replce", "IDLE"), id="in service"),
        pytest.param(node("Action: Replce", name="login1"), id="in no group"),
        pytest.param(node("Action: Replce", "IDLE", "DRAIN", "MAINTENANCE"), id="in maintenance"),
        pytest.param(node("Action:Replace"), id="plain"),
        pytest.param(node("nodewatch: Action: Replce"), id="ours"),
        pytest.param(node("Not responding", "DOWN"), id="Slurm's own"),
        pytest.param(node("see Action:Replace"), id="not at the beginning"),
        pytest.param(node("Action required, Ada"), id="somebody's sentence"),
    ],
)
def test_others_are_not(known: SlurmNode) -> None:
    assert answers(known) == []


@given(st.text())
def test_an_answer_is_of_a_length_that_slurm_keeps_is_nobodys_wish_and_is_not_answered(words: str) -> None:
    reason = f"Action: x{words}"
    told = unclear.answered(reason)
    assert len(told.encode(errors="replace")) <= 255
    assert told.startswith("Action: x")
    assert told.endswith(verbs.NOT_UNDERSTOOD)
    again = node(told)
    assert verbs.asked(again) is None
    assert answers(again) == []
    assert again.is_foreign


def test_of_words_that_are_too_long_the_beginning_is_kept() -> None:
    told = unclear.answered("Action: " + "é" * 300)
    assert told.startswith("Action: ééé")
    assert f"é... {verbs.NOT_UNDERSTOOD}" in told
