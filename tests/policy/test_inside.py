"""Jobs with nodes to spare: who is told which nodes are bad, what shows that they go on, and when they are requeued."""

from __future__ import annotations

import dataclasses

import pytest

from nodewatch.model.cluster import SlurmJob, Snapshot
from nodewatch.model.health import Severity
from nodewatch.model.heartbeats import Phase
from nodewatch.model.ledger import Case, Ledger, MarkedJob, Rung, Step
from nodewatch.policy import inside
from nodewatch.policy.inside import Seen, Sign, Told
from nodewatch.policy.rules import Rules

NOW = 1_000_000.0
RULES = Rules(mode="act")
NODES = ("n1", "n2", "n3", "n4")
JOB = MarkedJob(job_id=17, budget="3,spares=1", restart_count=0, nodes=NODES, started_at=1.0)
SEEN = SlurmJob(job_id=17, states=frozenset({"RUNNING"}), nodes=NODES)


def case(node: str = "n2", **values: object) -> Case:
    return dataclasses.replace(
        Case(
            case_id=f"{node}.gpu.1",
            node=node,
            family="gpu",
            fault="gpu.lost",
            subject="GPU-3",
            severity=Severity.FATAL,
            rung=Rung.REPLACE,
            step=Step.DRAINING,
            opened_at=NOW,
            step_at=NOW,
            admitted_at=NOW,
        ),
        **values,
    )


def waited_for(*cases: Case, job: MarkedJob = JOB, seen: SlurmJob = SEEN, after_s: float = 1.0) -> str | None:
    held = inside.waited_for(job, seen, cases, RULES, NOW + after_s)
    return None if held is None else held.why


def test_it_is_waited_for_its_supervisor_and_for_its_first_step_and_no_longer() -> None:
    starts = dataclasses.replace(JOB, inside=("n2",))

    assert "its supervisor is told; without a step within 60 s it is put back into the queue" in (
        waited_for(case()) or ""
    )
    assert waited_for(case(), after_s=60.0) is None
    assert "it starts again; " in (waited_for(case(), job=starts, after_s=60.0) or "")
    assert waited_for(case(), job=starts, after_s=600.0) is None


def test_once_it_goes_on_the_bad_node_is_no_reason_any_more() -> None:
    goes_on = dataclasses.replace(JOB, inside=("n2",), inside_step=130)

    assert waited_for(case(), job=goes_on, after_s=1e6) == "it goes on without n2 inside its allocation"
    assert waited_for(case("n3"), job=goes_on) is None, "and has one to spare and not two"


@pytest.mark.parametrize(
    "values",
    [
        {"budget": "3"},
        {"budget": "3,spares=0"},
        {"budget": "sp=ares"},
        {"nodes": ("n1", "n3")},
        {"ended_at": NOW},
    ],
)
def test_other_jobs_are_put_back_at_once(values: dict[str, object]) -> None:
    assert waited_for(case(), job=dataclasses.replace(JOB, **values)) is None


@pytest.mark.parametrize("values", [{"states": frozenset({"PENDING"})}, {"het_job_id": 16}])
def test_nor_is_one_waited_for_that_slurm_does_not_run_as_one(values: dict[str, object]) -> None:
    assert waited_for(case(), seen=dataclasses.replace(SEEN, **values)) is None


def test_more_bad_nodes_than_spares_are_too_many() -> None:
    assert waited_for(case("n2"), case("n3")) is None
    assert waited_for(case("n2"), case("n3"), job=dataclasses.replace(JOB, budget="3,spares=2")) is not None


@pytest.mark.parametrize(
    ("node", "family", "waits"), [("n1", "gpu", True), ("n1", "node", False), ("n2", "node", True)]
)
def test_with_the_first_node_the_batch_script_is_lost(node: str, family: str, waits: bool) -> None:
    assert (waited_for(case(node, family=family)) is not None) is waits


def asked(*cases: Case, rules: Rules = RULES, job: MarkedJob = JOB) -> dict[str, list[object]]:
    snapshot = Snapshot(taken_at=NOW, jobs={17: SEEN})
    ledger = Ledger(jobs={17: job}, cases={each.case_id: each for each in cases})
    found = inside.requests(inside.all_told(snapshot, ledger, rules))
    return {node: [request["nodes"] for request in each] for node, each in sorted(found.items())}


def test_every_node_of_the_job_is_told_what_stays_bad() -> None:
    assert asked(case()) == {name: [["n2"]] for name in NODES}
    assert asked(job=dataclasses.replace(JOB, inside=("n2",))) == {name: [["n2"]] for name in NODES}


@pytest.mark.parametrize(
    "values", [{"step": Step.HELD}, {"severity": Severity.DEGRADED}, {"node": "n9"}, {"step": Step.CLOSED}]
)
def test_nobody_is_told_of_what_is_not_bad(values: dict[str, object]) -> None:
    assert asked(case(**values)) == {}


def test_in_observe_mode_nobody_is_told() -> None:
    assert asked(case(), rules=dataclasses.replace(RULES, mode="observe")) == {}


def told(**values: object) -> Told:
    return dataclasses.replace(Told(job=JOB, nodes=("n2",), since=NOW, least=3), **values)


def rank(node: str, after_s: float, *, step: int = 60, phase: Phase = Phase.STEP) -> Seen:
    at = NOW + after_s
    return Seen(node=node, still_since=at, stepped_at=at if phase is Phase.STEP else None, step=step, phase=phase)


def ranks(after_s: float, nodes: tuple[str, ...] = ("n1", "n3", "n4"), **values: object) -> list[Seen]:
    return [rank(node, after_s, **values) for node in nodes]  # type: ignore[arg-type]


def test_steps_on_the_other_nodes_are_the_sign() -> None:
    assert inside.sign(told(), ranks(8.0, step=61)) == Sign(step=61)


def test_ranks_that_start_are_a_sign_of_less() -> None:
    assert inside.sign(told(), ranks(8.0, phase=Phase.STARTING)) == Sign(step=None)


def test_steps_of_about_the_time_of_the_fault_tell_nothing() -> None:
    assert inside.sign(told(), ranks(1.0)) is None


def test_a_rank_that_lives_on_the_bad_node_says_that_nothing_was_changed() -> None:
    assert inside.sign(told(), [*ranks(30.0, ("n1", "n3", "n4")), rank("n2", 25.0)]) is None
    assert inside.sign(told(), [*ranks(30.0, ("n1", "n3", "n4")), rank("n2", 0.5)]) == Sign(step=60)


def test_too_few_ranks_tell_nothing() -> None:
    assert inside.sign(told(), ranks(30.0, ("n1", "n3"))) is None
    assert inside.sign(told(least=2), ranks(30.0, ("n1", "n3"))) == Sign(step=60)
