"""Limits that count: tables."""

from typing import Any

import pytest

from nodewatch.model import actions as act
from nodewatch.model.cluster import SlurmNode, Snapshot
from nodewatch.model.health import Severity
from nodewatch.model.ledger import ActionRecord, ActionState, Case, Ledger, Rung, Step
from nodewatch.policy import budgets, guards
from nodewatch.policy.budgets import Occupancy, is_serving
from nodewatch.policy.past import Past
from nodewatch.policy.rules import Group, Rules

NOW = 1_700_000_000.0
NAMES = tuple(f"n{index}" for index in range(1, 11))


def case(
    node: str, *, at: float = NOW, step: Step = Step.HELD, family: str = "gpu", tried: tuple[Rung, ...] = ()
) -> Case:
    return Case(
        case_id=f"{node}.{family}.{int(at)}",
        node=node,
        family=family,
        fault=f"{family}.lost",
        subject="GPU-0",
        severity=Severity.FATAL,
        rung=Rung.REPLACE,
        step=step,
        opened_at=at,
        step_at=at,
        tried=tried,
        old_instance=f"i-{node}",
    )


def occupancy(rules: Rules, *out: str, states: str = "IDLE") -> Occupancy:
    nodes = {n: SlurmNode(name=n, address=n, states=frozenset(states.split("+")), partitions=("train",)) for n in NAMES}
    cases = [case(node, step=Step.DRAINING) for node in out]
    return Occupancy(cases, Snapshot(taken_at=NOW, nodes=nodes), rules)


def rules(**changes: object) -> Rules:
    domains = {"s1": NAMES[:5], "s2": NAMES[5:]}
    group = Group(name="g", nodes=NAMES, partition="train", launch_template="t", domains=domains)
    return Rules(mode="act", max_out=10, max_out_share=1.0, groups=(group,), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "out", "node", "words"),
    [
        ({}, ("n1", "n2"), "n3", None),
        ({"max_out_per_domain": 2}, ("n1",), "n3", None),
        ({"max_out_per_domain": 2}, ("n1", "n2"), "n3", "failure domain s1"),
        ({"max_out_per_domain": 2}, ("n1", "n2"), "n6", None),
        ({"min_healthy": {"train": 0.8}}, ("n1",), "n3", None),
        ({"min_healthy": {"train": 0.8}}, ("n1", "n2"), "n3", "has 8 of 10 nodes in service and must keep 8"),
        ({"min_healthy": {"train": 9}}, ("n1",), "n3", "must keep 9"),
        ({"min_healthy": {"*": 9}}, ("n1",), "n3", "must keep 9"),
        ({"min_healthy": {"other": 9}}, ("n1",), "n3", None),
    ],
)
def test_who_may_go_out(changes: dict[str, object], out: tuple[str, ...], node: str, words: str | None) -> None:
    known = rules(**changes)
    why = occupancy(known, *out).why_not(node, known.groups[0])
    assert (why is None) if words is None else (why is not None and words in why)


def test_one_admitted_in_the_same_tick_counts() -> None:
    known = rules(min_healthy={"train": 9}, max_out_per_domain=5)
    counted = occupancy(known)
    assert counted.why_not("n1", known.groups[0]) is None
    counted.admit(case("n1", step=Step.DRAINING))
    assert "must keep 9" in (counted.why_not("n2", known.groups[0]) or "")
    admitted = counted.admitted_on("n1")
    assert admitted is not None
    assert counted.admitted_on("n2") is None


@pytest.mark.parametrize(
    ("states", "serves"),
    [("IDLE", True), ("ALLOCATED", True), ("IDLE+DRAIN", False), ("DOWN", False), ("IDLE+NOT_RESPONDING", False)],
)
def test_what_counts_as_in_service(states: str, serves: bool) -> None:
    assert is_serving(SlurmNode(name="n", address="n", states=frozenset(states.split("+")))) is serves


@pytest.mark.parametrize(
    ("ages", "hour", "day", "words"),
    [
        ((100.0,), 2, 2, None),
        ((100.0, 200.0), 2, 5, "2 replacements within the last hour, the limit is 2"),
        ((7200.0, 8000.0), 1, 2, "2 replacements within the last day, the limit is 2"),
        ((90000.0, 90000.0), 1, 1, None),
    ],
)
def test_replacements_are_bounded(ages: tuple[float, ...], hour: int, day: int, words: str | None) -> None:
    known = rules(replacements_per_hour=hour, replacements_per_day=day)
    ledger = Ledger(replacements=tuple(NOW - age for age in ages))
    assert guards.replacements(known.groups[0], ledger, known, NOW) == words


@pytest.mark.parametrize(
    ("cases", "held"),
    [
        ([case("n1"), case("n2")], 0),
        ([case("n1"), case("n2"), case("n3")], 3),
        ([case("n1"), case("n2"), case("n3", family="disk")], 0),
        ([case("n1", at=NOW - 9000), case("n2", at=NOW - 9000), case("n3")], 0),
        ([case(f"n{n}", at=NOW - 9000 + n) for n in range(1, 4)], 3),
        ([case(f"n{n}", at=NOW - 90000 + n) for n in range(1, 4)], 0),
        ([case("n1", tried=(Rung.REBOOT,)), case("n2"), case("n3")], 0),
        ([case("n1", step=Step.BOOTING), case("n2"), case("n3")], 0),
        ([case("n1", step=Step.CLOSED), case("n2"), case("n3")], 3),
        ([case("n1", family="operator"), case("n2", family="operator"), case("n3", family="operator")], 0),
    ],
)
def test_a_storm_lasts_while_its_nodes_show_it(cases: list[Case], held: int) -> None:
    assert len(guards.lasting_storms(cases, Rules(), NOW)) == held


def test_the_past_is_asked_by_name_and_by_hardware() -> None:
    first, second, other = case("n1", at=NOW - 3), case("n2", at=NOW - 2), case("n3", at=NOW - 1)
    past = Past([first, second, other])
    assert past.about("n1", {"i-n2"}) == (first, second)
    assert past.about("n9", ()) == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"min_healthy": {"a": 1.5}},
        {"min_healthy": {"a": -1}},
        {"max_out_per_domain": -1},
        {"replacements_per_day": 10_001},
    ],
)
def test_what_makes_no_sense_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"min_healthy|max_out_per_domain|replacements_per_day"):
        rules(**changes)


RESERVATION = "reservation:cr-0123456789abcdef0"


def launching(node: str) -> Case:
    return Case(
        case_id=f"{node}.gpu.1",
        node=node,
        family="gpu",
        fault="gpu.lost",
        subject="GPU-0",
        severity=Severity.FATAL,
        rung=Rung.REPLACE,
        step=Step.LAUNCHING,
        opened_at=NOW - 100,
        step_at=NOW - 100,
    )


def asked(
    node: str, source: str, age: float, *, given: bool = False, code: str = "InsufficientInstanceCapacity"
) -> Any:
    suffix = "" if source == "launch_template" else f":{source}" + (":0" if source.startswith("fleet") else "")
    key = f"{node}.gpu.1:replace:launch:1{suffix}"
    action = act.Launch(key=key, node=node, launch_template="compute", source=source)
    state = ActionState.DONE if given else ActionState.FAILED
    return key, ActionRecord(
        action=action, state=state, at=NOW - age, tries=1, error=code, is_capacity=not given, error_code=code
    )


@pytest.mark.parametrize(
    ("records", "why"),
    [
        ([], None),
        # The reservation is full, and the fleet was not asked yet: others may ask it as well.
        ([("n1", RESERVATION, 10)], None),
        ([("n1", RESERVATION, 20), ("n1", "fleet", 10)], "waiting for the next try for n1, reservation"),
        ([("n1", "fleet", 20), ("n1", RESERVATION, 10)], "waiting for the next try for n1, fleet in 40 s"),
    ],
)
def test_a_group_waits_only_when_every_source_has_refused(records: list[Any], why: str | None) -> None:
    group = Group(
        name="compute", nodes=("n*",), partition="train", launch_template="t", capacity=(RESERVATION, "fleet")
    )
    ledger = Ledger(actions=dict(asked(*record) for record in records))
    told = budgets.refused([launching("n1"), launching("n2")], ledger, Rules(groups=(group,)), NOW)
    if why is None:
        assert told == {}
    else:
        assert why in told["compute"]


def test_a_machine_that_another_of_the_group_was_given_since_ends_the_wait() -> None:
    group = Group(name="compute", nodes=("n*",), partition="train", launch_template="t")
    refusals = [asked("n1", "launch_template", 20)]
    rules = Rules(groups=(group,))
    cases = [launching("n1"), launching("n2")]
    assert budgets.refused(cases, Ledger(actions=dict(refusals)), rules, NOW) != {}
    given = asked("n3", "launch_template", 5, given=True)
    assert budgets.refused(cases, Ledger(actions=dict([*refusals, given])), rules, NOW) == {}
    long_ago = asked("n3", "launch_template", 500, given=True)
    assert budgets.refused(cases, Ledger(actions=dict([*refusals, long_ago])), rules, NOW) != {}
