"""A node that Slurm drained because its prolog turned a job away comes back by itself once its fault has gone by itself."""

import dataclasses

import pytest

from nodewatch.model.health import Remedy, Severity
from nodewatch.policy.rules import Rules
from nodewatch.testing import World

ACT = Rules(mode="act", max_out_share=1.0, sweep_every_s=0.0)


def turned_away(world: World, name: str, fault: str = "filesystem.hung on /fsx", drained: str = "Prolog error") -> None:
    """What a prolog that says no leads to: the agent tells of it, and slurmd has its node drained."""
    machine = world.node(name)
    machine.sequence += 1
    machine.pending.append(
        {
            "id": f"{machine.instance_id}-{machine.boot}:{machine.sequence}",
            "at": world.clock(),
            "kind": "hook_denied",
            "ask": "prolog",
            "job": {"id": "7"},
            "reason": f"nodewatch: {fault} (degraded): this node cannot take work",
        }
    )
    world.slurm.operator(name, "drain", drained)


def hanging(world: World) -> None:
    for name in ("n1", "n2", "n3", "n4"):
        world.node(name).reports("filesystem.hung", Severity.DEGRADED, Remedy.HUMAN, "/fsx")


def well(world: World) -> None:
    for name in ("n1", "n2", "n3", "n4"):
        world.node(name).recovers()


def hung_once(world: World) -> None:
    """The storm is over, and a job was turned away at n2 while it lasted."""
    hanging(world)
    world.run(seconds=40)
    turned_away(world, "n2")
    world.run(seconds=40)
    well(world)


def world_of(**rules: object) -> World:
    world = World(nodes=4, spares=0, rules=dataclasses.replace(ACT, **rules))  # type: ignore[arg-type]
    world.run(seconds=5)
    return world


def test_jobs_turned_away_in_a_storm_cost_no_node() -> None:
    world = world_of()
    hanging(world)
    world.run(minutes=2)
    turned_away(world, "n2")
    turned_away(world, "n3")
    world.run(minutes=10)
    assert world.story() == []

    well(world)
    world.run(seconds=30)
    assert any("it returns after" in why for why in world.reasons("n2"))
    assert world.story() == [], "not before it has been healthy for a while"
    world.run(minutes=2)
    assert world.story() == ["return_to_service", "return_to_service"]
    assert world.slurm_node("n2").is_idle
    assert world.slurm_node("n3").is_idle


def test_a_failed_prolog_that_was_not_ours_is_left_to_whom_it_belongs() -> None:
    world = world_of()
    hanging(world)
    world.slurm.operator("n2", "drain", "Prolog error")
    world.run(minutes=2)
    well(world)
    world.run(minutes=10)
    assert world.story() == []
    assert world.slurm_node("n2").is_out


def test_one_that_was_returned_is_not_returned_for_a_later_failure_of_somebody_elses() -> None:
    world = world_of()
    hung_once(world)
    world.run(minutes=2)
    assert world.story() == ["return_to_service"]
    world.slurm.operator("n2", "drain", "Prolog error")
    world.run(minutes=10)
    assert world.story() == ["return_to_service"]


def test_a_node_that_may_be_broken_itself_is_not_returned_unchecked() -> None:
    world = world_of(max_out=0)
    hanging(world)
    world.node("n2").loses_gpu()
    world.run(seconds=40)
    turned_away(world, "n2")
    world.run(seconds=40)
    well(world)
    world.run(minutes=10)
    assert world.story() == []
    assert world.slurm_node("n2").is_out


@pytest.mark.parametrize("rules", [{"mode": "observe"}, {"paused": True}])
def test_it_waits_where_nothing_may_be_done(rules: dict[str, object]) -> None:
    world = world_of(**rules)
    hung_once(world)
    world.run(minutes=10)
    assert world.slurm.calls == []
    assert any("observe mode" in why or "paused" in why for why in world.reasons("n2"))


def test_an_operator_who_drains_it_meanwhile_keeps_it() -> None:
    world = world_of()
    hung_once(world)
    world.slurm.operator("n2", "drain", "bad fan, Ada")
    world.run(minutes=10)
    assert world.story() == []
    assert world.slurm_node("n2").reason == "bad fan, Ada"


@pytest.mark.parametrize(
    "away",
    [
        pytest.param({"drained": "Kill task failed"}, id="a process that cannot be killed"),
        pytest.param({"fault": "gpu.lost on GPU-1"}, id="turned away for a GPU that was back before anybody was told"),
        pytest.param({"fault": "?"}, id="turned away for what is not known"),
    ],
)
def test_slurm_may_have_drained_it_for_a_fault_of_its_own(away: dict[str, str]) -> None:
    world = world_of()
    hanging(world)
    world.run(seconds=40)
    turned_away(world, "n2", **away)
    world.run(seconds=40)
    well(world)
    world.run(minutes=10)
    assert world.story() == []
    assert world.slurm_node("n2").is_out


def test_a_no_of_last_week_is_no_reason_to_return_it_today() -> None:
    """An operator put it back; what fails now is the site's own prolog, of a fault that we know nothing of."""
    world = world_of()
    hung_once(world)
    world.slurm.operator("n2", "resume")
    world.run(minutes=10)
    world.slurm.operator("n2", "drain", "Prolog error")
    world.run(minutes=10)
    assert world.story() == []
    assert world.slurm_node("n2").is_out


def test_a_file_system_that_hung_on_one_node_alone_may_be_the_nodes_fault() -> None:
    world = world_of()
    world.node("n2").reports("filesystem.hung", Severity.DEGRADED, Remedy.HUMAN, "/fsx")
    world.run(seconds=40)
    turned_away(world, "n2")
    world.run(seconds=40)
    world.node("n2").recovers()
    world.run(minutes=10)
    assert world.story() == []
    assert any("no other node had the fault then: `nodewatch check --deep n2`" in why for why in world.reasons("n2"))


def test_an_epilog_that_says_no_hours_later_does_not_keep_it() -> None:
    world = world_of()
    hanging(world)
    world.run(seconds=40)
    turned_away(world, "n2")
    since = world.slurm_node("n2").reason_at
    world.run(minutes=30)
    turned_away(world, "n2")
    # Slurm leaves the reason of a node that is out already as it is.
    world.slurm.node_table["n2"] = dataclasses.replace(world.slurm_node("n2"), reason_at=since)
    world.run(seconds=40)
    well(world)
    world.run(minutes=3)
    assert world.story() == ["return_to_service"]


def test_where_slurm_does_not_say_when_it_drained_a_node_it_stays() -> None:
    world = world_of()
    hung_once(world)
    world.slurm.node_table["n2"] = dataclasses.replace(world.slurm_node("n2"), reason_at=0.0)
    world.run(minutes=10)
    assert world.story() == []
