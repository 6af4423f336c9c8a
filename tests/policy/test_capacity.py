"""Where the next machine comes from: the order of the sources, what passes one over, and what must never do so."""

from __future__ import annotations

import dataclasses

import pytest

from nodewatch.model import actions as act
from nodewatch.model.ledger import ActionRecord, ActionState, Ledger
from nodewatch.policy.capacity import PENDING, Kind, Source, choose, parse, sources
from nodewatch.policy.rules import Group, Rules

BASE = "n1.gpu.100:replace:launch:1"
RULES = Rules(mode="act")
NOW = 1000.0
WANTED = act.Launch(key="", node="n1", launch_template="compute", replaces="i-1")
BLOCK = "block:cr-0123456789abcdef0"


def group(*capacity: str, **more: object) -> Group:
    made = Group(name="g", nodes=("n1",), partition="train", launch_template="compute")
    return dataclasses.replace(made, capacity=capacity or ("launch_template",), **more)  # type: ignore[arg-type]


def failed(action: act.Launch, code: str, *, at: float = NOW, tries: int = 1, is_capacity: bool = True) -> ActionRecord:
    return ActionRecord(
        action=action,
        state=ActionState.FAILED,
        at=at,
        tries=tries,
        error=f"EC2 refused: {code}",
        error_code=code,
        is_capacity=is_capacity,
    )


def ledger(*records: ActionRecord) -> Ledger:
    return Ledger(actions={r.action.key: r for r in records})


def asked(of: Group, *records: ActionRecord, now: float = NOW) -> act.Launch:
    action = choose(BASE, WANTED, of, ledger(*records), RULES, now).action
    assert action is not None
    return action


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("launch_template", Source(kind=Kind.LAUNCH_TEMPLATE)),
        ("launch_template@subnet-0a", Source(kind=Kind.LAUNCH_TEMPLATE, subnet_id="subnet-0a")),
        ("spot", Source(kind=Kind.SPOT)),
        ("fleet", Source(kind=Kind.FLEET)),
        ("fleet:p5.48xlarge,p5e.48xlarge", Source(kind=Kind.FLEET, name="p5.48xlarge,p5e.48xlarge")),
        ("fleet:u-6tb1.112xlarge", Source(kind=Kind.FLEET, name="u-6tb1.112xlarge")),
        ("reservation:cr-0123456789abcdef0", Source(kind=Kind.RESERVATION, name="cr-0123456789abcdef0")),
        (BLOCK, Source(kind=Kind.BLOCK, name="cr-0123456789abcdef0")),
        ("asg:trainers", Source(kind=Kind.ASG, name="trainers")),
    ],
)
def test_a_source_is_read_and_written_alike(text: str, source: Source) -> None:
    assert parse(text) == source
    assert source.word == text


@pytest.mark.parametrize(
    "text",
    ["", "launchtemplate", "spot:p5", "reservation", "reservation:block", "block:", "asg:", "fleet:p5", "spot@zone-a"],
)
def test_what_is_no_source_says_how_to_write_it(text: str) -> None:
    with pytest.raises(ValueError, match="capacity"):
        parse(text)


def test_each_subnet_is_a_source_of_its_own() -> None:
    of = group("launch_template", "fleet", "spot", subnet_id="subnet-a", subnets=("subnet-b", "subnet-a"))
    assert [source.word for source in sources(of)] == [
        "launch_template@subnet-a",
        "launch_template@subnet-b",
        "fleet",
        "spot@subnet-a",
        "spot@subnet-b",
    ]


def test_by_default_the_launch_template_is_asked_under_the_plain_key() -> None:
    assert asked(group()) == act.Launch(
        key=BASE, node="n1", launch_template="compute", source="launch_template", replaces="i-1"
    )


def test_a_refusal_passes_to_the_next_source_at_once() -> None:
    of = group("launch_template", "fleet:p5.48xlarge", "spot")
    first = asked(of)
    second = asked(of, failed(first, "InsufficientInstanceCapacity"))
    assert second.source == "fleet:p5.48xlarge"
    assert second.key != first.key
    third = asked(of, failed(first, "InsufficientInstanceCapacity"), failed(second, "UnfulfillableCapacity"))
    assert third.source == "spot"


def test_one_that_is_forbidden_is_passed_over_too() -> None:
    of = group("launch_template", "spot")
    assert asked(of, failed(asked(of), "UnauthorizedOperation", is_capacity=False)).source == "spot"


@pytest.mark.parametrize("code", ["", "InternalError", "Unavailable"])
def test_a_launch_of_which_nothing_is_known_is_asked_again_under_its_own_key(code: str) -> None:
    of = group("launch_template", "spot")
    first = asked(of)
    record = failed(first, code, is_capacity=False)
    choice = choose(BASE, WANTED, of, ledger(record), RULES, NOW)
    assert choice.action is None
    assert "whether a machine was launched is not known" in choice.held
    assert asked(of, record, now=NOW + 3600) == first


def test_one_that_was_cut_off_is_asked_again_at_once_even_when_the_site_wants_others_now() -> None:
    first = asked(group())
    cut = ActionRecord(action=first, state=ActionState.INTENDED, at=NOW, tries=1)
    assert asked(group("spot"), cut) == first


def test_a_group_that_has_not_launched_yet_is_waited_for_alone() -> None:
    of = group("asg:trainers", "spot")
    first = asked(of)
    assert first.source == "asg:trainers"
    waiting = failed(first, PENDING)
    assert choose(BASE, WANTED, of, ledger(waiting), RULES, NOW).action is None
    assert asked(of, waiting, now=NOW + 3600) == first


def test_throttling_is_no_reason_to_ask_elsewhere() -> None:
    of = group("launch_template", "spot")
    slow = failed(asked(of), "RequestLimitExceeded")
    choice = choose(BASE, WANTED, of, ledger(slow), RULES, NOW)
    assert choice.action is None
    assert "limits how often" in choice.held


def test_when_all_have_refused_the_first_whose_wait_is_over_is_tried_again() -> None:
    of = group("launch_template", "spot")
    first = asked(of)
    second = asked(of, failed(first, "InsufficientInstanceCapacity"))
    both = (
        failed(first, "InsufficientInstanceCapacity", at=NOW - 10),
        failed(second, "MaxSpotInstanceCountExceeded", at=NOW),
    )
    choice = choose(BASE, WANTED, of, ledger(*both), RULES, NOW)
    assert choice.held == (
        "EC2 has no capacity (launch_template: InsufficientInstanceCapacity; spot: MaxSpotInstanceCountExceeded); "
        "trying launch_template again in 50 s"
    )
    assert asked(of, *both, now=NOW + 50).source == "launch_template"
    assert asked(of, *both, now=NOW + 70).source == "launch_template", "the site's order holds among those that are due"


@pytest.mark.parametrize(("tries", "wait"), [(1, 60), (2, 120), (3, 240), (9, 600), (1000, 600)])
def test_the_waits_double_up_to_a_limit(tries: int, wait: float) -> None:
    of = group()
    refused = failed(asked(of), "InsufficientInstanceCapacity", tries=tries)
    assert choose(BASE, WANTED, of, ledger(refused), RULES, NOW + wait - 1).action is None
    assert asked(of, refused, now=NOW + wait).key == BASE


def test_an_empty_fleet_is_asked_again_under_another_token_and_its_waits_double_too() -> None:
    of = group("fleet")
    first = asked(of)
    second = asked(of, failed(first, "UnfulfillableCapacity"), now=NOW + 60)
    assert second.key != first.key
    both = (failed(first, "UnfulfillableCapacity"), failed(second, "UnfulfillableCapacity", at=NOW + 60))
    assert choose(BASE, WANTED, of, ledger(*both), RULES, NOW + 179).action is None
    assert asked(of, *both, now=NOW + 180).key not in {first.key, second.key}


def test_a_fleet_has_all_subnets_and_a_reservation_its_own() -> None:
    subnets = {"subnet_id": "subnet-a", "subnets": ("subnet-b",), "launch_template_version": "7"}
    fleet = asked(group("fleet", **subnets))
    assert (fleet.subnets, fleet.subnet_id, fleet.version) == (("subnet-a", "subnet-b"), None, "7")
    reserved = asked(group("reservation:cr-0123456789abcdef0@subnet-b", **subnets))
    assert (reserved.subnets, reserved.subnet_id) == ((), "subnet-b")
    assert asked(group(BLOCK, **subnets)).subnet_id == "subnet-a"


def test_what_was_launched_is_found_by_whichever_source() -> None:
    of = group("launch_template", "spot")
    first = asked(of)
    second = asked(of, failed(first, "InsufficientInstanceCapacity"))
    done = ActionRecord(action=second, state=ActionState.DONE, at=NOW, tries=1, result={"instance_id": "i-7"})
    choice = choose(BASE, WANTED, of, ledger(failed(first, "InsufficientInstanceCapacity"), done), RULES, NOW)
    assert choice.done == done


def test_the_launches_of_another_try_are_another_matter() -> None:
    tenth = act.Launch(key=BASE + "0", node="n1", launch_template="compute")
    done = ActionRecord(action=tenth, state=ActionState.DONE, at=NOW, tries=1)
    assert asked(group(), done).key == BASE
