"""What an operator types into a node's reason is done, when it is plain, and answered, when it is not."""

import dataclasses

import pytest

from nodewatch.policy.rules import Rules
from nodewatch.testing import World


@pytest.mark.parametrize("reason", ["Action:Replace", "action: replace", " ACTION:REPLACE. "])
def test_replace_is_done_once_the_jobs_have_ended(reason: str) -> None:
    world = World(nodes=4, spares=1)
    world.run(seconds=5)
    job = world.submit(nodes=3, auto_resume="3")
    world.run(seconds=10)
    world.slurm.operator("n2", "drain", reason)
    world.run(minutes=3)
    assert world.job(job).is_running, "the operator's wish does not interrupt a job"
    assert world.ec2.launched == []

    world.slurm.end_job(job, "COMPLETED", 0)
    world.run(minutes=5)
    assert len(world.ec2.launched) == 1
    assert [case.fault for case in world.cases("n2")] == ["operator.replace"]
    assert [case.step.value for case in world.cases("n2")] == ["closed"]


def test_reboot_is_done_and_the_node_comes_back() -> None:
    world = World(nodes=4, spares=0)
    world.run(seconds=5)
    world.slurm.operator("n2", "drain", "Action:Reboot")
    world.run(minutes=5)
    assert world.story() == ["drain", "reboot", "return_to_service"]
    assert world.slurm_node("n2").is_idle


@pytest.mark.parametrize("reason", ["Action:Repalce", "replace this", "Action: please replace"])
def test_what_is_not_plain_is_answered_and_not_done(reason: str) -> None:
    world = World(nodes=4, spares=1)
    world.run(seconds=5)
    world.slurm.operator("n2", "drain", reason)
    world.run(minutes=3)
    assert world.slurm_node("n2").reason.startswith(reason)
    assert world.story("drain", "reboot", "launch", "return_to_service") == []
    told = f'the reason "{reason}" is not understood, nothing is done: write reason="Action:Replace"'
    assert any(why.startswith(told) for why in world.reasons("n2"))


ANSWER = "[nodewatch: not understood; type Action:Replace or Action:Reboot]"


@pytest.mark.parametrize("state", ["drain", "down"])
@pytest.mark.parametrize(
    "reason", ["Action: Replce", "action:restart", "Action replace please", "ACTION=REBOOT", "Action:Replace n3 too"]
)
def test_words_that_seem_to_be_for_us_are_answered_once_where_they_were_typed(reason: str, state: str) -> None:
    world = World(nodes=4, spares=0)
    world.run(seconds=5)
    world.slurm.operator("n2", state, reason)
    before = world.slurm_node("n2").states
    world.run(seconds=3)
    assert world.slurm_node("n2").reason == f"{reason} {ANSWER}"
    assert world.slurm_node("n2").states == before
    world.run(minutes=3)
    world.restart_controller()
    world.run(minutes=90, step_s=30)
    assert world.slurm_node("n2").reason == f"{reason} {ANSWER}"
    assert world.story() == ["answer_reason"]

    world.slurm.operator("n2", "drain", "Action:Reboot")
    world.run(minutes=5)
    assert world.story("reboot", "return_to_service") == ["reboot", "return_to_service"]


@pytest.mark.parametrize("reason", ["replace this", "Action needed: PSU of rack 7", "actions of Ada", "Reboot"])
def test_words_that_may_be_for_others_are_not_written_over(reason: str) -> None:
    world = World(nodes=4, spares=0)
    world.run(seconds=5)
    world.slurm.operator("n2", "drain", reason)
    world.run(minutes=3)
    assert world.slurm_node("n2").reason == reason
    assert world.slurm.calls == []


def test_a_typed_correction_that_crosses_the_answer_is_not_written_over() -> None:
    world = World(nodes=4, spares=0)
    world.run(seconds=5)
    world.slurm.operator("n2", "drain", "Action:Replce")
    world.slurm.before_reason = lambda node: world.slurm.operator(node, "drain", "Action:Reboot")
    world.run(minutes=5)
    assert world.story("reboot", "return_to_service") == ["reboot", "return_to_service"]


def test_the_same_mistake_of_another_day_is_answered_again() -> None:
    world = World(nodes=4, spares=0)
    world.run(seconds=5)
    for _ in range(2):
        world.slurm.operator("n2", "drain", "Action:Replce")
        world.run(seconds=5)
        assert world.slurm_node("n2").reason == f"Action:Replce {ANSWER}"
        world.slurm.operator("n2", "resume")
        world.run(minutes=90, step_s=30)


def test_an_answer_that_slurm_refuses_is_tried_again() -> None:
    world = World(nodes=4, spares=0)
    world.run(seconds=5)
    world.slurm.refuse = ["reason n2"]
    world.slurm.operator("n2", "drain", "Action:Replce")
    world.run(seconds=30)
    assert world.slurm_node("n2").reason == f"Action:Replce {ANSWER}"


@pytest.mark.parametrize("rules", [{"mode": "observe"}, {"paused": True}])
def test_where_nothing_may_be_done_it_is_only_said(rules: dict[str, object]) -> None:
    world = World(nodes=4, spares=0, rules=dataclasses.replace(Rules(mode="act", sweep_every_s=0.0), **rules))  # type: ignore[arg-type]
    world.run(seconds=5)
    world.slurm.operator("n2", "drain", "Action:Replce")
    world.run(minutes=3)
    assert world.slurm.calls == []
    assert any("is not understood" in why for why in world.reasons("n2"))


@pytest.mark.parametrize("reason", ["bad fan", "rack 7 maintenance", "Ada: replaced the cable, testing"])
def test_other_reasons_are_nobodys_business(reason: str) -> None:
    world = World(nodes=4, spares=1)
    world.run(seconds=5)
    world.slurm.operator("n2", "drain", reason)
    world.run(minutes=3)
    assert world.story() == ["hold_spare"]
    assert world.reasons("n2") == []
