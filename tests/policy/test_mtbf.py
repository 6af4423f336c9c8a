"""The failure rate of a node: the prior alone, little evidence, much of it."""

from __future__ import annotations

import pytest

from nodewatch.model.health import Severity
from nodewatch.model.ledger import Case, Rung, Step
from nodewatch.policy.mtbf import PRIOR_NODE_MTBF_S, node_mtbf_s
from nodewatch.policy.rules import Rules

DAY = 86400.0
NOW = 1000 * DAY
RULES = Rules(shared_families=("lustre",))


def case(days_ago: float, *, severity: Severity = Severity.FATAL, family: str = "gpu") -> Case:
    return Case(
        case_id=f"n1.{family}.{days_ago}",
        node="n1",
        family=family,
        fault=f"{family}.x",
        subject="x",
        severity=severity,
        rung=Rung.REBOOT,
        step=Step.CLOSED,
        opened_at=NOW - days_ago * DAY,
        step_at=NOW,
        tried=(Rung.REBOOT,),
    )


@pytest.mark.parametrize(
    ("cases", "nodes", "days", "expected_days"),
    [
        ([], 2048, 0, 263.94),
        ([], 0, 30, 263.94),
        ([], 16, 30, 263.94 + 480),
        ([case(3)], 100, 30, (263.94 + 3000) / 2),
        ([case(3) for _ in range(11)], 100, 30, (263.94 + 3000) / 12),
        ([case(3, severity=Severity.DEGRADED), case(3, family="lustre"), case(3, family="operator")], 0, 30, 263.94),
        ([case(40)], 1, 30, 263.94 + 30),
        ([case(100)], 1, 365, 263.94 + 90),
    ],
)
def test_what_was_seen_and_what_others_saw(cases: list[Case], nodes: int, days: float, expected_days: float) -> None:
    found = node_mtbf_s(cases, RULES, nodes=nodes, since=NOW - days * DAY, now=NOW)

    assert found / DAY == pytest.approx(expected_days, rel=1e-4)


def test_the_prior_is_llama_3s() -> None:
    """2,048 nodes together: once in 3.1 hours."""
    hours = PRIOR_NODE_MTBF_S / 2048 / 3600

    assert hours == pytest.approx(3.09, abs=0.01)


def test_a_clock_that_went_back_makes_no_time() -> None:
    assert node_mtbf_s([], RULES, nodes=5, since=NOW + DAY, now=NOW) == PRIOR_NODE_MTBF_S
