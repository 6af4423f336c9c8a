"""Which case a job's end is blamed on: the windows around it."""

from __future__ import annotations

import dataclasses

import pytest

from nodewatch.model.health import Severity
from nodewatch.model.ledger import Case, MarkedJob, Rung, Step
from nodewatch.policy.job_scene import blamed, limit_of
from nodewatch.policy.rules import Rules

START = 1_000_000.0
END = START + 1000.0
RULES = Rules()
JOB = MarkedJob(job_id=17, budget="default", restart_count=0, nodes=("n1", "n2"), started_at=START)
ENDED = dataclasses.replace(JOB, ended_at=END)


def case(
    at: float,
    *,
    node: str = "n1",
    severity: Severity = Severity.FATAL,
    step: Step = Step.DRAINING,
    fault_at: float = 0.0,
) -> Case:
    return Case(
        case_id=f"{node}.gpu.{at:.0f}",
        node=node,
        family="gpu",
        fault="gpu.lost",
        subject="s",
        severity=severity,
        rung=Rung.REPLACE,
        step=step,
        opened_at=at,
        step_at=at,
        fault_at=fault_at,
    )


@pytest.mark.parametrize(
    ("at", "is_blamed"),
    [
        (END - 120.1, False),
        (END - 120.0, True),
        (END - 1.0, True),
        (END, True),
        (END + 15.0, True),
        (END + 15.1, False),
    ],
)
def test_a_fault_around_the_end_is_its_cause(at: float, is_blamed: bool) -> None:
    found = blamed(ENDED, [case(at)], RULES, END + 20)
    assert (found is not None) == is_blamed


def test_a_fault_of_before_the_run_is_not_its_cause() -> None:
    short = dataclasses.replace(JOB, ended_at=START + 10.0)
    assert blamed(short, [case(START - 1.0)], RULES, START + 20) is None
    assert blamed(short, [case(START)], RULES, START + 20) is not None


def test_the_finding_counts_and_not_when_the_case_was_opened() -> None:
    assert blamed(ENDED, [case(END + 60.0, fault_at=END + 5.0)], RULES, END + 60) is not None
    assert blamed(ENDED, [case(END, fault_at=END - 500.0)], RULES, END + 60) is None


@pytest.mark.parametrize(
    ("known", "is_blamed"),
    [
        (case(END), True),
        (case(END, node="n3"), False),
        (case(END, severity=Severity.DEGRADED), False),
        (case(END, step=Step.HELD), True),
        (case(END, step=Step.CLOSED), True),
    ],
)
def test_only_a_fatal_case_on_a_node_of_the_job(known: Case, is_blamed: bool) -> None:
    assert (blamed(ENDED, [known], RULES, END + 20) is not None) == is_blamed


@pytest.mark.parametrize(
    ("known", "is_blamed"),
    [
        (case(END), True),
        (case(START - 500.0), True),
        (case(END, step=Step.HELD), False),
        (case(END, step=Step.WATCHING), False),
        (case(END, step=Step.CLOSED), False),
        (case(END, severity=Severity.DEGRADED), False),
        (case(END, node="n3"), False),
    ],
)
def test_a_job_that_runs_on_is_interrupted_for_an_admitted_case_alone(known: Case, is_blamed: bool) -> None:
    assert (blamed(JOB, [known], RULES, END) is not None) == is_blamed


def test_the_first_that_fits_is_named() -> None:
    first, second = case(END - 5.0, node="n2"), case(END - 5.0)
    assert blamed(ENDED, [case(END - 900.0), first, second], RULES, END + 20) is first


@pytest.mark.parametrize(("budget", "limit"), [("default", 3), ("", 3), ("1", 1), ("0", 0), ("12", 12), ("yes", 3)])
def test_the_budget(budget: str, limit: int) -> None:
    assert limit_of(dataclasses.replace(JOB, budget=budget), RULES) == limit
