"""Who is asked for a checkpoint before a node goes, and how often."""

from __future__ import annotations

import dataclasses

import pytest

from nodewatch.model.cluster import SlurmJob, SlurmNode, Snapshot
from nodewatch.model.health import Severity
from nodewatch.model.ledger import Case, Ledger, MarkedJob, Rung, Step, Wish
from nodewatch.policy.rules import Rules
from nodewatch.policy.save_now import SaveRequest, save_requests

NOW = 1_000_000.0
RULES = Rules(mode="act", event_save_s=600.0)
JOB = MarkedJob(job_id=17, budget="3", restart_count=0, nodes=("n1", "n2"), started_at=1.0)
OTHER = dataclasses.replace(JOB, job_id=18, nodes=("n3",))
SEEN = Snapshot(
    taken_at=NOW,
    jobs={number: SlurmJob(job_id=number, states=frozenset({"RUNNING"})) for number in (17, 18)},
)


def case(**values: object) -> Case:
    return dataclasses.replace(
        Case(
            case_id="n2.efa.1",
            node="n2",
            family="efa",
            fault="efa.link",
            subject="rdmap0s6",
            severity=Severity.DEGRADED,
            rung=Rung.REBOOT,
            step=Step.DRAINING,
            opened_at=NOW,
            step_at=NOW,
        ),
        **values,
    )


def ledger(*cases: Case, wishes: dict[str, Wish] | None = None, job: MarkedJob = JOB) -> Ledger:
    return Ledger(cases={c.case_id: c for c in cases}, jobs={17: job, 18: OTHER}, wishes=wishes or {})


def asked(known: Ledger, *, rules: Rules = RULES, snapshot: Snapshot = SEEN, now: float = NOW) -> dict[str, list[str]]:
    found = save_requests(snapshot, known, rules, now)
    return {node: [f"{each.job_id} {each.key}" for each in requests] for node, requests in sorted(found.items())}


def test_all_nodes_of_the_job_are_told_and_no_other_job() -> None:
    assert asked(ledger(case())) == {"n1": ["17 n2.efa.1"], "n2": ["17 n2.efa.1"]}


@pytest.mark.parametrize(
    "values",
    [
        {"step": Step.HELD},
        {"step": Step.WATCHING},
        {"severity": Severity.FATAL},
        {"node": "n9"},
        {"step": Step.CLOSED},
    ],
)
def test_nobody_is_asked_for_nothing(values: dict[str, object]) -> None:
    assert asked(ledger(case(**values))) == {}


@pytest.mark.parametrize("verb", ["replace", "reboot"])
def test_an_operators_wish_asks_first(verb: str) -> None:
    wish = Wish(key="operator:n1:5", verb=verb, node="n1", at=NOW)

    assert asked(ledger(wishes={"n1": wish})) == {"n1": ["17 operator:n1:5"], "n2": ["17 operator:n1:5"]}


@pytest.mark.parametrize("reason", ["dust in the fans", "nodewatch: drained by ada"])
def test_whoever_drains_a_node_has_its_jobs_save(reason: str) -> None:
    node = SlurmNode(name="n1", address="", states=frozenset({"ALLOCATED", "DRAIN"}), reason=reason)

    found = asked(ledger(), snapshot=dataclasses.replace(SEEN, nodes={"n1": node}))

    assert found == {name: [f"17 n1 drained: {reason}"] for name in ("n1", "n2")}


def test_a_return_asks_nobody() -> None:
    assert asked(ledger(wishes={"n1": Wish(key="k", verb="return", node="n1", at=NOW)})) == {}


@pytest.mark.parametrize(("left_s", "key"), [(3600.0, "n2.efa.1"), (900.0, "n2.efa.1:last"), (60.0, "n2.efa.1:last")])
def test_ec2s_event_asks_once_more_before_the_job_has_to_go(left_s: float, key: str) -> None:
    event = case(fault="ec2.event", evidence={"starts_at": NOW + left_s, "code": "instance-retirement"})

    assert asked(ledger(event))["n1"] == [f"17 {key}"]


def test_a_job_that_does_not_run_is_not_asked() -> None:
    pending = dataclasses.replace(SEEN, jobs={17: SlurmJob(job_id=17, states=frozenset({"PENDING"}))})

    assert asked(ledger(case()), snapshot=pending) == {}
    assert asked(ledger(case(), job=dataclasses.replace(JOB, ended_at=NOW))) == {}


def test_in_observe_mode_nothing_is_asked() -> None:
    assert asked(ledger(case()), rules=dataclasses.replace(RULES, mode="observe")) == {}


def test_what_the_agent_hears() -> None:
    said = SaveRequest(job_id=17, key="n2.efa.1").to_json()

    assert said == {"kind": "save_now", "job": 17, "key": "n2.efa.1", "stop": False}
