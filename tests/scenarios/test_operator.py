"""What an operator types into a node's reason is done, when it is plain, and answered, when it is not."""

import pytest

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
    assert world.slurm_node("n2").reason == reason
    assert world.story() == ["hold_spare"]
    assert any("is not understood" in why and 'reason="Action:Replace"' in why for why in world.reasons("n2"))


@pytest.mark.parametrize("reason", ["bad fan", "rack 7 maintenance", "Ada: replaced the cable, testing"])
def test_other_reasons_are_nobodys_business(reason: str) -> None:
    world = World(nodes=4, spares=1)
    world.run(seconds=5)
    world.slurm.operator("n2", "drain", reason)
    world.run(minutes=3)
    assert world.story() == ["hold_spare"]
    assert world.reasons("n2") == []
