"""`nodewatch job` of a whole world: what its user is told at each point of a job's life."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import pytest

from nodewatch.cli.job import render
from nodewatch.controller.questions import Questions
from nodewatch.testing import World

NOBODY = 65534


def story(world: World, job: object, *, uid: int = 0) -> dict[str, Any]:
    questions = Questions(world.engine, may_act=[0], problems=lambda: (), clock=world.clock, wake=lambda: None)
    return dict(questions.answer({"ask": "job", "job": str(job)}, uid))


def witness(world: World, job: int, **content: Any) -> None:
    machine = world.node(world.engine.ledger.jobs[job].nodes[0])
    machine.sequence += 1
    event = {
        "id": f"{machine.instance_id}-{machine.boot}:{machine.sequence}",
        "at": world.clock(),
        "kind": "job_witness",
    }
    restart = world.engine.ledger.jobs[job].restart_count
    machine.pending.append({**event, "job_id": job, "restart_count": restart, **content})


@pytest.fixture
def world() -> World:
    world = World(nodes=5, spares=1)
    world.run(seconds=5)
    world.submit(nodes=2, auto_resume="2,dir=/fsx/run1")
    world.run(seconds=60)
    return world


def test_a_job_that_runs_well(world: World) -> None:
    told = story(world, 1)
    assert told["restarts"] == {"used": 0, "allowed": 2, "left": 2}
    assert (told["directory"], told["interruptions"], told["lost_s"]) == ("/fsx/run1", [], None)
    text = render(told)
    assert "it runs; after a fault of a node it is started again, 2 restarts left" in text
    assert text.endswith("it was not interrupted")


def test_an_interruption_by_the_machine(world: World) -> None:
    world.node(world.job(1).nodes[1]).loses_gpu()
    witness(world, 1, lines=[], first_step=0, last_step=130, checkpoint_step=100)
    world.run(seconds=60)
    told = story(world, 1)
    (run,) = told["interruptions"]
    assert (run["cause"], run["run"], run["last_step"], run["lost_steps"]) == ("hardware", 1, 130, 30)
    assert told["restarts"]["left"] == 1
    assert told["lost_s"] == run["lost_s"] > 0
    text = render(told)
    assert "the machine, not your program" in text
    assert "goes on from step 100" in text
    assert "1 restart left" in text
    assert "back after" in text


def test_a_fault_of_the_program_and_whose_lines_are_shown(world: World) -> None:
    world.fails(1)
    witness(world, 1, lines=["exception: [rank3]: ValueError: my secret is 17"])
    world.run(seconds=5)
    assert "waiting for what its nodes report" in story(world, 1)["next"]
    world.run(seconds=30)
    told = story(world, 1)
    text = render(told)
    assert "your program" in text
    assert "it raised ValueError on rank 3" in text
    assert "my secret is 17" in text
    assert "next         nothing: the program failed" in text
    assert "secret" not in render(story(world, 1, uid=NOBODY)), "lines of its output are its user's"
    assert "it raised ValueError" in render(story(world, 1, uid=NOBODY))


def test_a_job_that_waits_or_is_held(world: World) -> None:
    world.slurm.requeue(1)
    world.slurm.job_table[1] = dataclasses.replace(world.job(1), held_by="user", priority=0)
    world.run(seconds=30)
    assert "its user holds it: `scontrol release 1` lets it go on" in story(world, 1)["next"]


def test_a_job_that_was_not_submitted_with_the_flag(world: World) -> None:
    job = world.submit(nodes=1, auto_resume=None)
    world.run(seconds=30)
    told = story(world, job)
    assert told["auto_resume"] is None
    text = render(told)
    assert "was not submitted with --auto-resume" in text
    assert len(text.splitlines()) == 2


@pytest.mark.parametrize(
    ("job", "says"), [("99", "no job 99 is known"), ("n2", "is no job id"), ("15_x", "is no job id")]
)
def test_what_is_no_job(world: World, job: str, says: str) -> None:
    assert says in story(world, job)["error"]


def test_a_slurm_that_cannot_be_read(world: World) -> None:
    world.slurm.outage = True
    world.run(seconds=5)
    assert "Slurm cannot be read now" in story(world, 1)["next"]
    assert "Slurm cannot be read now" in story(world, 99)["error"]


def test_an_element_of_an_array_by_the_name_that_squeue_shows(world: World) -> None:
    elements = world.submit_array(tasks=2, auto_resume="1")
    world.run(seconds=30)
    told = story(world, f"{elements[0]}_1")
    assert (told["job"], told["shown_as"]) == (elements[1], f"{elements[0]}_1")


def test_its_own_user_sees_its_lines(world: World) -> None:
    world.fails(1)
    witness(world, 1, lines=["MemoryError"])
    world.run(seconds=40)
    world.slurm.job_table[1] = dataclasses.replace(world.job(1), user=_me())
    world.run(seconds=2)
    assert story(world, 1, uid=os.getuid())["interruptions"][0]["evidence"] == ["MemoryError"]


def _me() -> str:
    import pwd

    return pwd.getpwuid(os.getuid()).pw_name
