"""What must be left: nodes of a failure domain, nodes of a partition, machines to buy, and how long jobs are waited for."""

import dataclasses

from nodewatch.model.health import Remedy, Severity
from nodewatch.policy.rules import Rules
from nodewatch.testing import World

ACT = Rules(mode="act", max_out=6, max_out_share=1.0, storm_nodes=99, sweep_every_s=0.0)


def world_with(group: dict[str, object] | None = None, nodes: int = 6, spares: int = 0, **rules: object) -> World:
    world = World(nodes=nodes, spares=spares, rules=dataclasses.replace(ACT, **rules))  # type: ignore[arg-type]
    (known,) = world.rules.groups
    world.rules = dataclasses.replace(world.rules, groups=(dataclasses.replace(known, **(group or {})),))  # type: ignore[arg-type]
    world.restart_controller()
    world.run(seconds=5)
    return world


def out(world: World) -> set[str]:
    return {name for name in world.slurm.node_table if world.slurm_node(name).is_out}


def test_a_failure_domain_keeps_its_other_nodes_while_another_domain_goes_on() -> None:
    domains = {"spine1": ("n1", "n2", "n3"), "spine2": ("n4", "n5", "n6")}
    world = world_with({"domains": domains}, max_out_per_domain=1)
    for name in ("n1", "n2", "n4"):
        world.node(name).loses_gpu()
    world.run(seconds=20)

    assert out(world) == {"n1", "n4"}
    assert any("failure domain spine1" in why and "the limit is 1" in why for why in world.reasons("n2"))
    world.run(minutes=10)
    assert len(world.ec2.launched) == 3, "the second node of the domain follows the first"


def test_a_partition_keeps_its_share_of_nodes_in_service() -> None:
    world = world_with(min_healthy={"train": 0.8})
    for name in ("n1", "n2"):
        world.node(name).loses_gpu()
    world.run(seconds=20)

    assert out(world) == {"n1"}
    assert any("partition train has 5 of 6 nodes in service and must keep 5" in why for why in world.reasons("n2"))


def test_a_node_that_is_down_already_may_be_repaired_however_few_are_left() -> None:
    world = world_with(min_healthy={"*": 6})
    world.node("n3").crashes()
    world.run(minutes=5)

    assert len(world.ec2.launched) == 1


def test_a_days_replacements_are_counted_and_priced() -> None:
    world = world_with({"price_per_hour": 60.0}, replacements_per_day=1)
    world.node("n1").loses_gpu()
    world.run(minutes=5)
    world.node("n2").loses_gpu()
    world.run(minutes=120, step_s=30.0)

    assert len(world.ec2.launched) == 1
    (why,) = [why for why in world.reasons("n2") if "replacements" in why]
    assert why.startswith(
        "1 replacements within the last day, the limit is 1; at 60.00 an hour each they cost up to 35.00"
    )


def test_an_impaired_node_waits_for_its_job_only_so_long() -> None:
    world = world_with(degraded_wait_s=600.0)
    job = world.submit(nodes=1, auto_resume="3")
    world.run(seconds=5)
    (node,) = world.job(job).nodes
    world.node(node).reports("efa.port_down", Severity.DEGRADED, Remedy.REBOOT)
    world.run(minutes=9)
    assert world.job(job).restart_count == 0
    assert any("may go on for" in why for why in world.reasons(node))

    world.run(minutes=10)
    assert world.job(job).restart_count == 1
    assert world.job(job).is_running
    assert world.story("reboot") == ["reboot"]


def test_a_job_that_slurm_may_requeue_is_moved_and_one_that_it_may_not_is_left_alone() -> None:
    for may_requeue, restarts in ((True, 1), (False, 0)):
        world = world_with(degraded_wait_s=60.0)
        job = world.submit(nodes=1, auto_resume=None)
        world.slurm.job_table[job] = dataclasses.replace(world.job(job), may_requeue=may_requeue)
        world.run(seconds=5)
        (node,) = world.job(job).nodes
        world.node(node).reports("efa.port_down", Severity.DEGRADED, Remedy.REBOOT)
        world.run(minutes=5)

        assert world.job(job).restart_count == restarts
        cannot = any("cannot be put back into the queue" in why for why in world.reasons(node))
        assert cannot is not may_requeue


def test_one_refusal_is_enough_for_a_group() -> None:
    world = world_with()
    world.ec2.no_capacity = True
    world.node("n1").loses_gpu()
    world.run(seconds=10)
    world.node("n2").loses_gpu()
    world.run(minutes=1)

    assert {a["node"] for a in intended(world, "launch")} == {"n1"}
    assert any("EC2 has no capacity for group compute" in why and "for n1" in why for why in world.reasons("n2"))
    world.ec2.no_capacity = False
    world.run(minutes=20)
    assert len(world.ec2.launched) == 2


def test_a_dead_switch_outlasts_the_cool_down() -> None:
    world = world_with(storm_nodes=3)
    for name in ("n1", "n2", "n3"):
        world.node(name).crashes()
    world.run(minutes=60, step_s=5.0)

    assert world.story("launch", "terminate", "mark_down", "drain") == []
    assert any("which still show them" in why for why in world.reasons("n1"))


def intended(world: World, word: str) -> list[dict[str, object]]:
    actions = [record.data["action"] for record in world.journal.records if record.kind == "intended"]
    return [action for action in actions if action["action"] == word]
