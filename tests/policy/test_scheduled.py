"""Scheduled events by their time: what is held, when it is drained, when jobs have to go."""

from __future__ import annotations

import pytest

from nodewatch.model.health import Finding, Remedy, Severity
from nodewatch.model.ledger import Case, Rung, Step
from nodewatch.policy.rules import Rules
from nodewatch.policy.scheduled import is_far, is_moved, is_same, jobs_must_go_at, not_yet

NOW = 1_000_000.0
RULES = Rules(event_lead_s=14400.0, event_save_s=600.0)


def case(fault: str = "ec2.event", **evidence: object) -> Case:
    return Case(
        case_id="n1.ec2.1",
        node="n1",
        family=fault.partition(".")[0],
        fault=fault,
        subject="i-1 instance-event-1",
        severity=Severity.DEGRADED,
        rung=Rung.REPLACE,
        step=Step.HELD,
        opened_at=NOW,
        step_at=NOW,
        evidence=evidence,
    )


@pytest.mark.parametrize(
    ("starts_in_s", "why"),
    [
        (
            14 * 86400.0,
            "EC2 begins its instance-retirement of n1 in 336.0 h: it works for another 332.0 h and is drained then",
        ),
        (14401.0, "EC2 begins its instance-retirement of n1 in 4.0 h: it works for another 0.0 h and is drained then"),
        (14400.0, None),
        (60.0, None),
        (-60.0, None),
    ],
)
def test_a_retirement_is_not_drained_for_days_ahead(starts_in_s: float, why: str | None) -> None:
    assert not_yet(case(starts_at=NOW + starts_in_s, code="instance-retirement"), RULES, NOW) == why


@pytest.mark.parametrize("told", [None, "soon", True])
def test_an_event_without_a_time_is_taken_at_once(told: object) -> None:
    event = case(starts_at=told, code="instance-stop")
    assert not_yet(event, RULES, NOW) is None
    assert jobs_must_go_at(event, RULES) is None


def test_another_fault_has_no_schedule() -> None:
    other = case("gpu.lost", starts_at=NOW + 86400)
    assert not_yet(other, RULES, NOW) is None
    assert jobs_must_go_at(other, RULES) is None


def test_jobs_go_before_ec2_ends_them() -> None:
    assert jobs_must_go_at(case(starts_at=NOW + 3600), RULES) == NOW + 3000


def finding(subject: str = "i-1 instance-event-1", fault: str = "ec2.event", **evidence: object) -> Finding:
    return Finding(
        fault=fault, subject=subject, severity=Severity.DEGRADED, remedy=Remedy.REPLACE, evidence=dict(evidence)
    )


@pytest.mark.parametrize(
    ("found", "is_the_same", "was_moved"),
    [
        (finding(starts_at=NOW + 3600), True, False),
        (finding(starts_at=NOW + 7200), True, True),
        (finding(), True, True),
        (finding("i-1 instance-event-2", starts_at=NOW + 7200), False, False),
        (finding(fault="ec2.system_impaired", starts_at=NOW + 7200), False, False),
    ],
)
def test_an_event_is_known_again_by_its_id_and_may_be_moved(found: Finding, is_the_same: bool, was_moved: bool) -> None:
    known = case(starts_at=NOW + 3600)
    assert (is_same(known, found), is_moved(known, found)) == (is_the_same, was_moved)


def test_only_an_event_that_is_far_gives_way_to_what_is_wrong_now() -> None:
    assert is_far(finding(starts_at=NOW + 14401), RULES, NOW)
    assert not is_far(finding(starts_at=NOW + 14400), RULES, NOW)
    assert not is_far(finding(), RULES, NOW)
