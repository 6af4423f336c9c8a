"""What EC2's status checks lead to: another machine, unless we know better."""

from __future__ import annotations

from nodewatch.model.health import Finding, Remedy, Severity, StandingFinding
from nodewatch.testing import World


def says(world: World, node: str, fault: str, severity: Severity, remedy: Remedy) -> None:
    instance = world.node(node).instance_id
    finding = Finding(fault=fault, subject=instance, severity=severity, remedy=remedy)
    world.cloud[instance] = (StandingFinding(finding=finding, first_at=world.clock(), last_at=world.clock()),)


def calm() -> World:
    world = World(nodes=3, spares=0)
    world.run(seconds=3)
    return world


def test_a_host_that_ec2_calls_impaired_is_left_for_another() -> None:
    world = calm()
    old = world.node("n2").instance_id
    says(world, "n2", "ec2.system_impaired", Severity.FATAL, Remedy.REPLACE)
    world.run(minutes=6)

    assert world.node("n2").instance_id != old
    assert world.cases("n2")[-1].fault == "ec2.system_impaired"
    assert len(world.ec2.launched) == 1, "what EC2 says of the old machine is no fault of its successor"


def test_an_instance_that_ec2_does_not_reach_while_we_hear_its_agent_is_well() -> None:
    world = calm()
    says(world, "n2", "ec2.instance_impaired", Severity.DEGRADED, Remedy.REBOOT)
    world.run(minutes=10)
    assert world.story() == []


def test_a_warning_of_ec2_repairs_nothing() -> None:
    world = calm()
    says(world, "n2", "ec2.performance_impaired", Severity.WARN, Remedy.HUMAN)
    world.run(minutes=5)
    assert world.story() == []
