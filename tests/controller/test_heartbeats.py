"""What the controller keeps of heartbeats: each run's own, as long as it runs, and told by metrics and in the job's story."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from nodewatch.controller.heartbeats import Heartbeats
from nodewatch.controller.metrics import EngineCollector
from nodewatch.journal.story import sentences
from nodewatch.model.cluster import AgentView, SlurmJob, Snapshot
from nodewatch.model.ledger import Ledger, MarkedJob
from nodewatch.policy.progress import HangRules
from nodewatch.policy.rules import Rules
from nodewatch.testing import World

START = 1_700_000_000.0


class Bench:
    """One job on n1, its agent and Slurm's word, at times that are given."""

    def __init__(self, rules: HangRules | None = None) -> None:
        self.heartbeats = Heartbeats(rules or HangRules())
        self.restart = 0
        self.records: list[tuple[str, Mapping[str, Any]]] = []

    def told(self, at: float, step: int, phase: str = "step", **more: Any) -> None:
        rank = {"step": step, "phase": phase, **more}
        self.heartbeats.take("n1", {"jobs": {"17": {"ranks": {"0": rank}}}}, START + at)

    def look(self, at: float, *, states: str = "RUNNING") -> list[str]:
        """The kinds of the records that follow from a look."""
        now = START + at
        job = SlurmJob(
            job_id=17,
            states=frozenset({states}),
            nodes=("n1",),
            restart_count=self.restart,
            started_at=START if states == "RUNNING" else None,
        )
        view = AgentView(node="n1", heard_at=now, boot_id="b", instance_id="i", verdict=None)
        marked = MarkedJob(job_id=17, budget="3", restart_count=self.restart, nodes=("n1",), started_at=START)
        before = len(self.records)
        self.heartbeats.look(
            Snapshot(taken_at=now, jobs={17: job}, agents={"n1": view}),
            Ledger(jobs={17: marked}),
            Rules(),
            lambda kind, data: self.records.append((kind, data)),
            now,
        )
        return [kind for kind, _ in self.records[before:]]

    def steps(self, start: int, stop: int, *, every_s: float = 1.0) -> None:
        for step in range(start, stop):
            self.told(step * every_s, step)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def stands(bench: Bench, since: float, until: float, step: int) -> list[str]:
    """The kinds of the records that follow while the job stands still and its agent repeats it."""
    found: list[str] = []
    at = since
    while at < until:
        at += 20
        bench.told(at, step, still_s=at - since)
        found += bench.look(at)
    return found


def test_the_usual_step_is_measured_where_the_program_does_not_tell_it(bench: Bench) -> None:
    bench.steps(0, 30, every_s=40.0)
    assert bench.look(29 * 40.0) == []
    assert stands(bench, 29 * 40.0, 29 * 40.0 + 370, 29) == []
    assert stands(bench, 29 * 40.0, 29 * 40.0 + 480, 29)[0] == "hang_suspected"


def test_a_save_between_two_steps_is_no_long_step(bench: Bench) -> None:
    bench.steps(0, 10)
    bench.told(10, 9, "saving")
    bench.told(900, 10)
    for step in range(11, 20):
        bench.told(890 + step, step)
    bench.look(909)
    assert stands(bench, 909, 1240, 19)[0] == "hang_suspected"


def test_one_long_step_makes_the_next_wait(bench: Bench) -> None:
    bench.steps(0, 10)
    bench.told(259, 10)
    for step in range(11, 20):
        bench.told(249 + step, step)
    bench.look(268)
    assert stands(bench, 268, 268 + 480, 19) == []
    assert stands(bench, 268, 268 + 560, 19)[0] == "hang_suspected"


def test_the_next_run_begins_with_nothing(bench: Bench) -> None:
    bench.steps(0, 30)
    bench.look(30)
    assert bench.heartbeats.steps(START + 35) == {17: (29, 6.0)}
    bench.restart = 1
    bench.look(33)
    assert bench.heartbeats.steps(START + 35) == {}


def test_a_job_that_slurm_does_not_know_is_forgotten(bench: Bench) -> None:
    bench.steps(0, 30)
    bench.look(30)
    bench.look(100, states="COMPLETED")
    assert 17 in bench.heartbeats.steps(START + 100)
    bench.look(200, states="COMPLETED")
    assert bench.heartbeats.steps(START + 200) == {}


def test_a_rank_that_its_node_does_not_tell_of_any_more_is_gone(bench: Bench) -> None:
    bench.steps(0, 3)
    bench.heartbeats.take("n2", {"jobs": {}}, START + 3)
    assert 17 in bench.heartbeats.steps(START + 3)
    bench.heartbeats.take("n1", {"jobs": {}}, START + 3)
    assert bench.heartbeats.steps(START + 3) == {}


def test_stacks_count_for_the_question_that_was_asked(bench: Bench) -> None:
    bench.steps(0, 30)
    bench.look(30)
    assert stands(bench, 29, 340, 29)[0] == "hang_suspected"
    (request,) = bench.heartbeats.requests("n1")
    assert (request["kind"], request["job"]) == ("stack_dump", 17)
    assert bench.heartbeats.requests("n2") == []
    answer = {"dumps": [{"rank": 0, "said": "no py-spy"}]}
    bench.heartbeats.dumped("n1", {**answer, "key": "another"})
    bench.heartbeats.dumped("n2", {**answer, "key": request["key"]})
    assert bench.heartbeats.requests("n1") == [request]
    bench.heartbeats.dumped("n1", {**answer, "key": request["key"]})
    assert bench.heartbeats.requests("n1") == []
    assert bench.look(352) == ["hang_judged"]
    assert "could not be read: no py-spy" in bench.records[-1][1]["hang"]["text"]


def test_metrics_and_story_tell_of_marked_jobs() -> None:
    world = World(nodes=4, spares=1)
    world.run(seconds=5)
    marked, other = world.submit(nodes=1, auto_resume="3"), world.submit(nodes=1, auto_resume=None)
    world.run(seconds=5)
    still = [0.0]
    for job in (marked, other):
        (node,) = world.job(job).nodes
        rank = {"step": 7, "phase": "step", "step_s": 1.0, "pid": 5}
        world.node(node).tells = _teller(job, rank, still)
    world.run(seconds=3)
    registry = CollectorRegistry()
    registry.register(EngineCollector(world.engine, world.clock))
    lines = [line for line in generate_latest(registry).decode().splitlines() if line.startswith("nodewatch_job")]
    assert lines == [
        f'nodewatch_job_last_step{{job="{marked}"}} 7.0',
        f'nodewatch_job_seconds_since_step{{job="{marked}"}} {lines[1].split()[-1]}',
    ]
    for _ in range(700):
        still[0] += 1
        world.run(seconds=1)
    told = [line["text"] for line in sentences(world.engine.story, job_id=marked)]
    assert any(text.startswith("may hang: no rank has made a step for") for text in told)
    assert any(text.startswith("hangs: no rank has made a step for") for text in told)


def _teller(job: int, rank: Mapping[str, object], still: list[float]) -> Any:
    return lambda: {"jobs": {str(job): {"ranks": {"0": {**rank, "still_s": still[0]}}}}}
