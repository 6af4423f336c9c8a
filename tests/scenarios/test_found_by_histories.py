"""What random histories found, told once more in full."""

from __future__ import annotations

from nodewatch.model.health import Remedy, Severity
from nodewatch.model.ledger import Rung, Step
from nodewatch.policy.rules import Rules
from nodewatch.testing import World

ACT = Rules(mode="act", max_out=3, max_out_share=1.0, sweep_every_s=0.0, healthy_delay_s=5.0)


def calm(*, nodes: int = 4, boot_s: float = 60.0) -> World:
    world = World(nodes=nodes, spares=0, boot_s=boot_s, rules=ACT)
    world.run(seconds=3)
    return world


def test_a_node_that_somebody_takes_between_two_tries_of_our_drain_stays_theirs() -> None:
    world = calm()
    world.slurm.refuse = ["drain n2"]
    world.node("n2").loses_gpu()
    world.run(seconds=1)
    world.slurm.operator("n2", "drain", "replacing a cable, Ada")
    world.run(minutes=30, step_s=20.0)

    assert world.slurm_node("n2").reason == "replacing a cable, Ada"
    assert world.story() == []
    assert [case.step for case in world.cases("n2")] == [Step.HELD]

    world.slurm.operator("n2", "resume")
    world.run(minutes=10, step_s=5.0)
    assert world.story("drain", "launch") == ["drain", "launch"], "given back with its fault, it is repaired"


def test_a_node_that_somebody_takes_between_two_rungs_stays_theirs() -> None:
    world = calm()
    world.slurm_reboots = world.ec2_reboots = False
    world.node("n2").reports("gpu.gsp", Severity.FATAL, Remedy.REBOOT)
    world.run(minutes=2 * ACT.reboot_timeout_s / 60 - 1, step_s=20.0)
    assert world.story("reboot", "reboot_instance") == ["reboot", "reboot_instance"]
    world.slurm.operator("n2", "drain", "replacing a cable, Ada")
    world.run(minutes=60, step_s=20.0)

    assert [case.tried for case in world.cases("n2")] == [(Rung.REBOOT,)]
    assert world.slurm_node("n2").reason == "replacing a cable, Ada"
    assert world.story("drain", "launch") == ["drain"]
    assert any("somebody else" in why for why in world.reasons("n2"))


def test_a_job_that_waits_keeps_away_from_a_node_no_longer_than_it_is_ill_however_often() -> None:
    world = calm(nodes=3)
    waiting = world.submit(nodes=3, auto_resume="3")
    world.run(seconds=3)
    for node in ("n3", "n1", "n3"):
        world.slurm.operator("n2", "drain", "not now")
        world.node(node).loses_gpu()
        world.run(seconds=20)
        assert world.job(waiting).excluded_nodes == (node,)
        world.run(minutes=10, step_s=5.0)
        assert world.job(waiting).excluded_nodes == ()
    world.slurm.operator("n2", "resume")
    world.run(seconds=5)
    assert world.job(waiting).is_running


def test_a_job_that_is_not_started_again_keeps_away_from_no_node_that_is_cured() -> None:
    world = calm(nodes=3, boot_s=600.0)
    job = world.submit(nodes=1, auto_resume="1")
    world.run(seconds=3)
    world.node("n1").loses_gpu()
    world.run(minutes=25, step_s=5.0)
    assert (world.job(job).nodes, world.job(job).excluded_nodes) == (("n2",), ("n1",))

    world.slurm.operator("n1", "drain", "not now")
    world.slurm.operator("n3", "drain", "not now")
    world.node("n2").crashes()
    world.run(minutes=4, step_s=5.0)
    assert "restarts are used up" in world.judged(job)
    assert world.job(job).is_pending
    assert world.job(job).excluded_nodes == ()


def test_a_return_in_place_of_a_repair_is_done_though_slurm_refuses_it_once() -> None:
    world = calm()
    world.slurm.operator("n2", "down", "by hand")
    world.engine.note("paused", {"scopes": ["cluster"], "by": "ada", "reason": "", "until": None})
    world.engine.note("operator_asked", {"verb": "replace", "nodes": ["n2"], "by": "ada", "reason": "", "force": False})
    world.run(seconds=5)
    assert [case.step for case in world.cases("n2")] == [Step.HELD]

    world.slurm.refuse = ["resume n2"]
    world.engine.note("operator_asked", {"verb": "return", "nodes": ["n2"], "by": "ada", "reason": "", "force": False})
    world.run(minutes=5)

    assert not world.slurm_node("n2").is_out
    assert not world.slurm_node("n2").is_down
    assert world.engine.ledger.wishes == {}
