"""What the controller tells agents for their jobs' sake, from the hook's file to the answer."""

from __future__ import annotations

import dataclasses

import pytest

from nodewatch.controller.job_side import JobSide
from nodewatch.model.auto_resume import SiteDefault
from nodewatch.model.cluster import SlurmJob, SlurmNode, Snapshot
from nodewatch.model.ledger import Ledger
from nodewatch.policy.mtbf import PRIOR_NODE_MTBF_S
from nodewatch.policy.rules import Rules
from nodewatch.testing import World

NOW = 1_000_000.0
TRAIN = SiteDefault(partition="train", value="3,dir=/fsx/{user}/{job_name}")
SEEN = Snapshot(
    taken_at=NOW,
    nodes={name: SlurmNode(name=name, address="", states=frozenset({"ALLOCATED"})) for name in ("n1", "n2")},
    jobs={
        17: SlurmJob(job_id=17, states=frozenset({"RUNNING"}), nodes=("n1", "n2")),
        18: SlurmJob(job_id=18, states=frozenset({"COMPLETING", "FAILED"}), nodes=("n2",)),
        19: SlurmJob(job_id=19, states=frozenset({"COMPLETED"}), nodes=("n1",)),
    },
)


@pytest.mark.parametrize(
    ("started", "mark"),
    [
        ({"auto_resume": "default", "partition": "train", "user": "ada", "name": "run1"}, "3,dir=/fsx/ada/run1"),
        ({"auto_resume": "5,dir=/mine", "partition": "train", "user": "ada"}, "5,dir=/mine"),
        ({"auto_resume": "off", "partition": "train"}, "off"),
        ({"auto_resume": None, "partition": "train"}, None),
        ({"auto_resume": "2", "partition": "debug"}, "2"),
        ({}, None),
    ],
)
def test_the_mark_of_a_job(started: dict[str, object], mark: str | None) -> None:
    assert JobSide((TRAIN,), since=NOW).mark(started) == mark


def test_an_agent_hears_of_its_own_jobs_while_the_picture_is_fresh() -> None:
    side = JobSide((TRAIN,), since=NOW)
    assert "jobs" not in side.cluster("n1", NOW), "before the first look nothing is known"

    side.look(SEEN, Ledger(), Rules(), (), NOW)

    assert [side.cluster(node, NOW + 5).get("jobs") for node in ("n1", "n2", "n3")] == [[17], [17, 18], []]
    assert side.cluster("n1", NOW)["auto_resume"] == [TRAIN.to_json()]
    assert "jobs" not in side.cluster("n1", NOW + 60)


def test_half_a_picture_says_nothing_of_jobs() -> None:
    side = JobSide((), since=NOW)

    side.look(dataclasses.replace(SEEN, slurm_error="slurmctld is away"), Ledger(), Rules(), (), NOW)

    assert side.cluster("n1", NOW) == {"node_mtbf_s": round(PRIOR_NODE_MTBF_S, 1), "auto_resume": []}


def test_the_rate_is_that_of_the_time_since_the_journal_began() -> None:
    side = JobSide((), since=NOW - 30 * 86400)

    side.look(SEEN, Ledger(), Rules(), (), NOW)

    assert side.cluster("n1", NOW)["node_mtbf_s"] == round(PRIOR_NODE_MTBF_S + 2 * 30 * 86400, 1)


def test_a_site_that_marks_its_jobs_has_them_started_again() -> None:
    world = World()
    world.site_defaults = (SiteDefault(always=True, value="2"),)
    world.restart_controller()
    marked, off = (world.submit(nodes=1, auto_resume=text) for text in (None, "off"))

    world.run(seconds=3)

    assert {job: known.budget for job, known in world.engine.ledger.jobs.items()} == {marked: "2"}
    world.node(world.job(marked).nodes[0]).loses_gpu()
    world.run(minutes=2)
    assert world.job(marked).restart_count == 1
    assert world.job(off).restart_count == 0


def test_a_job_is_asked_to_save_before_an_operator_takes_its_node() -> None:
    world = World()
    job_id = world.submit(nodes=2, auto_resume="3")
    world.run(seconds=3)
    first, second = world.job(job_id).nodes
    assert world.asked_to_save == set()

    world.engine.note("operator_asked", {"nodes": [first], "verb": "drain", "by": "ada", "reason": "dust"})
    world.run(seconds=3)

    assert {(job, node) for job, _, node in world.asked_to_save} == {(job_id, first), (job_id, second)}
    assert world.job(job_id).is_running
