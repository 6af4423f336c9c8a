"""What becomes of a marked job: by its own output, by who holds it, by what Slurm does with it by itself."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from nodewatch.model.ledger import Cause
from nodewatch.testing import World


def world_with_job(*, nodes: int = 5, size: int = 2, auto_resume: str = "3") -> tuple[World, int]:
    world = World(nodes=nodes, spares=1)
    world.run(seconds=5)
    job = world.submit(nodes=size, auto_resume=auto_resume)
    world.run(seconds=30)
    assert world.job(job).is_running
    return world, job


def witness(world: World, job: int, **content: Any) -> None:
    """The agent of the job's first node tells what the run left behind."""
    seen, marked = world.job(job), world.engine.ledger.jobs[job]
    machine = world.node((seen.nodes or marked.nodes)[0])
    machine.sequence += 1
    event = {
        "id": f"{machine.instance_id}-{machine.boot}:{machine.sequence}",
        "at": world.clock(),
        "kind": "job_witness",
    }
    machine.pending.append({**event, "job_id": job, "restart_count": marked.restart_count, **content})


def slurm_says(world: World, job: int, **fields: Any) -> None:
    world.slurm.job_table[job] = dataclasses.replace(world.job(job), **fields)


def back_in_queue(world: World, job: int, **fields: Any) -> None:
    """Slurm puts a running job back by itself."""
    world.slurm.requeue(job)
    world.slurm.calls.clear()
    slurm_says(world, job, **fields)


def test_the_output_says_whose_fault_it_was_and_the_comment_from_where_it_goes_on() -> None:
    world, job = world_with_job()
    world.fails(job)
    lines = ["[rank3]: RuntimeError: CUDA error: uncorrectable ECC error encountered"]
    witness(world, job, lines=lines, first_step=0, last_step=130, checkpoint_step=100)
    world.run(seconds=40)
    marked = world.engine.ledger.jobs[job]
    assert (marked.judged_cause, world.job(job).is_running, world.job(job).restart_count) == ("hardware", True, 1)
    assert "uncorrectable ECC" in world.job(job).comment
    assert world.job(job).comment.endswith("; goes on from step 100")
    (run,) = marked.interruptions
    assert (run.last_step, run.saved_step, run.lost_steps, run.restarts) == (130, 100, 30, True)
    assert run.lost_s is not None
    assert 0 < run.lost_s < 40
    world.fails(job)
    witness(world, job, lines=lines, first_step=90, last_step=131, checkpoint_step=110)
    world.run(seconds=40)
    first, second = world.engine.ledger.jobs[job].interruptions
    assert (first.resumed_step, first.lost_steps) == (90, 40), "where it really went on from"
    assert second.lost_steps == 21


def test_a_program_that_stops_at_the_same_step_after_its_retry_is_left() -> None:
    world, job = world_with_job()
    killed = {"lines": [], "first_step": 0, "last_step": 70, "checkpoint_step": 50}
    world.slurm.end_job(job, "FAILED", 137)
    witness(world, job, **killed)
    world.run(seconds=40)
    assert world.job(job).restart_count == 1
    world.slurm.end_job(job, "FAILED", 137)
    witness(world, job, **{**killed, "first_step": 50})
    world.run(minutes=3)
    assert world.job(job).has_failed
    assert "no progress since the last try (step 70" in world.judged(job)
    assert world.engine.ledger.jobs[job].judged_cause == Cause.PROGRAM.value


def test_a_witness_of_another_shape_is_no_witness() -> None:
    world, job = world_with_job()
    world.fails(job)
    witness(world, job, lines="all of it", failures=[1, {"rank": "x"}, {"t": float("nan"), "rank": 1}], last_step=-4)
    world.run(seconds=40)
    assert world.engine.ledger.jobs[job].judged_cause == "program"
    assert world.engine.ledger.jobs[job].interruptions[0].last_step is None


@pytest.mark.parametrize("state", ["TIMEOUT", "PREEMPTED"])
def test_what_slurm_ended_is_not_started_again_and_its_user_is_told(state: str) -> None:
    world, job = world_with_job()
    world.slurm.end_job(job, state, 0)
    world.run(minutes=3)
    assert state in world.job(job).states
    assert "not started again" in world.judged(job)
    assert world.story("requeue") == []


def test_a_preempted_job_waits_for_its_turn() -> None:
    world, job = world_with_job()
    back_in_queue(world, job, preempted_at=world.clock())
    world.run(seconds=60)
    assert world.story("expedite") == [], "it would take its nodes back from the job that was given them"
    assert world.engine.ledger.jobs[job].judged_cause == "preemption"
    world.run(minutes=2)
    assert world.job(job).is_running


def test_a_hold_of_slurms_own_is_taken_off_and_counted() -> None:
    world, job = world_with_job(auto_resume="2")
    for count in (1, 2):
        back_in_queue(world, job, held_by="slurm", priority=0)
        world.run(seconds=30)
        assert (world.job(job).is_running, world.job(job).restart_count) == (True, count)
    back_in_queue(world, job, held_by="slurm", priority=0)
    world.run(minutes=5)
    assert world.job(job).held_by == "slurm"
    assert "all 2 restarts are used up" in world.judged(job)
    assert any("Slurm holds it and it is left so" in why for why in world.reasons(f"job {job}"))


@pytest.mark.parametrize(
    ("who", "says"), [("user", "its user holds it"), ("administrator", "an administrator holds it")]
)
def test_what_somebody_holds_stays_held(who: str, says: str) -> None:
    world, job = world_with_job()
    back_in_queue(world, job, held_by=who, priority=0)
    world.run(minutes=4)
    assert world.job(job).held_by == who
    assert not {f"release {job}", f"expedite {job}"} & set(world.slurm.calls)
    assert any(says in why for why in world.reasons(f"job {job}"))


def test_slurms_own_expedited_requeue_is_waited_for() -> None:
    world, job = world_with_job()
    slurm_says(world, job, is_expedited=True)
    world.slurm.end_job(job, "FAILED", 1)
    slurm_says(world, job, states=frozenset({"FAILED", "EXPEDITING"}))
    world.run(minutes=2)
    assert world.story("requeue") == []
    assert any("--requeue=expedite" in why for why in world.reasons(f"job {job}"))
    slurm_says(world, job, states=frozenset({"PENDING", "EXPEDITING"}), restart_count=1, nodes=())
    world.run(seconds=5)
    assert world.story("requeue", "expedite") == [], "Slurm starts it, before all others"
    assert world.job(job).is_running


def expedited_and_held(world: World, job: int) -> None:
    world.slurm.end_job(job, "FAILED", 1)
    held = {"states": frozenset({"PENDING", "REQUEUE_HOLD"}), "held_by": "slurm", "priority": 0}
    slurm_says(world, job, is_expedited=True, restart_count=1, ended_at=world.clock(), **held)


def test_a_job_that_slurm_blames_stays_held_when_we_blame_it_too() -> None:
    world, job = world_with_job()
    expedited_and_held(world, job)
    world.run(minutes=3)
    assert world.job(job).held_by == "slurm"
    assert world.engine.ledger.jobs[job].judged_cause == "program"
    assert world.story("requeue", "expedite") == []


def test_a_job_that_slurm_blames_is_let_go_when_a_node_was_at_fault() -> None:
    world, job = world_with_job()
    expedited_and_held(world, job)
    world.node(world.engine.ledger.jobs[job].nodes[1]).loses_gpu()
    world.run(seconds=30)
    assert world.job(job).is_running
    assert world.engine.ledger.jobs[job].judged_cause == "hardware"
    assert (world.story("requeue"), world.job(job).restart_count) == ([], 1), "Slurm had put it back already"


def test_a_fault_under_one_component_requeues_the_heterogeneous_job_once_by_its_first() -> None:
    world = World(nodes=6, spares=1)
    world.run(seconds=5)
    first, second = (world.submit(nodes=2, auto_resume="3") for _ in range(2))
    for offset, job in enumerate((first, second)):
        slurm_says(world, job, het_job_id=first, het_job_offset=offset)
    world.run(seconds=30)
    world.node(world.job(second).nodes[0]).loses_gpu()
    world.run(minutes=2)
    assert [call for call in world.slurm.calls if call.startswith("requeue")] == [f"requeue {first}"]
    assert [(world.job(job).is_running, world.job(job).restart_count) for job in (first, second)] == [(True, 1)] * 2
    assert {world.engine.ledger.jobs[job].judged_cause for job in (first, second)} == {"hardware"}


def test_a_component_that_fails_because_another_ones_node_died_is_not_blamed() -> None:
    world = World(nodes=6, spares=1)
    world.run(seconds=5)
    first, second = (world.submit(nodes=2, auto_resume="3") for _ in range(2))
    for offset, job in enumerate((first, second)):
        slurm_says(world, job, het_job_id=first, het_job_offset=offset)
    world.run(seconds=30)
    broken = world.job(second).nodes[0]
    for job in (first, second):
        world.fails(job)
    world.node(broken).loses_gpu()
    world.run(minutes=2)
    assert all(world.engine.ledger.jobs[job].judged_cause == "hardware" for job in (first, second))
    assert all(world.job(job).is_running for job in (first, second))


def test_one_element_of_an_array_goes_alone_even_the_one_with_the_arrays_id() -> None:
    world = World(nodes=5, spares=1)
    world.run(seconds=5)
    elements = world.submit_array(tasks=3, auto_resume="3")
    world.run(seconds=30)
    world.node(world.job(elements[0]).nodes[0]).loses_gpu()
    world.run(minutes=2)
    assert [world.job(job).restart_count for job in elements] == [1, 0, 0]
    about = [call for call in world.slurm.calls if call.split()[0] in ("requeue", "expedite")]
    assert about == [f"requeue {elements[0]}_0", f"expedite {elements[0]}_0"]


def test_a_job_that_is_no_batch_job_is_judged_and_its_user_told_that_it_cannot_go_back() -> None:
    world, job = world_with_job()
    slurm_says(world, job, is_batch=False)
    world.node(world.job(job).nodes[0]).loses_gpu()
    world.run(seconds=60)
    assert "Slurm can put batch jobs (sbatch) alone back" in world.judged(job)
    assert world.story("requeue") == []


def test_the_node_that_the_output_blames_is_avoided_while_others_are_free() -> None:
    world, job = world_with_job(nodes=6, size=2)
    bad = world.job(job).nodes[0]
    world.fails(job)
    failure = {"t": world.clock(), "rank": 0, "host": bad, "kind": "program"}
    witness(world, job, lines=[], failures=[{**failure, "error": "X: CUDA error: uncorrectable ECC error encountered"}])
    world.run(seconds=60)
    assert world.job(job).is_running
    assert bad not in world.job(job).nodes


def test_slurms_own_requeue_beyond_the_budget_is_left_to_slurm() -> None:
    world, job = world_with_job(auto_resume="0")
    bad = world.job(job).nodes[0]
    world.slurm.requeue(job)
    world.node(bad).loses_gpu()
    world.run(seconds=30)
    assert world.story("expedite") == []
    assert "all 0 restarts are used up, and what Slurm does with it is Slurm's own" in world.judged(job)


def test_a_job_that_is_put_back_by_hand_after_its_program_failed_waits_for_its_turn() -> None:
    world, job = world_with_job()
    world.fails(job)
    world.run(seconds=30)
    assert world.engine.ledger.jobs[job].judged_cause == "program"
    world.slurm.requeue(job)
    world.run(seconds=30)
    assert world.story("expedite") == []
    world.run(minutes=2)
    assert world.job(job).is_running
