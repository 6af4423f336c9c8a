"""What EC2's status checks lead to: another machine, unless we know better."""

from __future__ import annotations

import dataclasses

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


EVENT = "instance-event-0f00000000000001"
HOUR_S = 3600.0


def retires(world: World, node: str, in_s: float, *, event: str = EVENT, code: str = "instance-retirement") -> None:
    """EC2 tells an event of the machine of `node`, as DescribeInstanceStatus does."""
    instance = world.node(node).instance_id
    world.cloud[instance] = (
        StandingFinding(
            finding=retirement(world, instance, in_s, event, code), first_at=world.clock(), last_at=world.clock()
        ),
    )


def retirement(
    world: World, instance: str, in_s: float, event: str = EVENT, code: str = "instance-retirement"
) -> Finding:
    return Finding(
        fault="ec2.event",
        subject=f"{instance} {event}",
        severity=Severity.DEGRADED,
        remedy=Remedy.REPLACE,
        evidence={"code": code, "starts_at": world.clock() + in_s},
    )


def mute(world: World, node: str) -> None:
    """The agent is gone and the machine works on: slurmd answers."""
    world.node(node).alive = False
    world.engine._reach = lambda _node, _address: True


def test_a_retirement_of_a_node_whose_agent_is_silent_waits_for_its_time() -> None:
    world = calm()
    mute(world, "n2")
    world.run(seconds=30)
    retires(world, "n2", 10 * HOUR_S)
    world.run(minutes=5 * 60, step_s=60)
    assert world.story() == []
    assert any("EC2 begins its instance-retirement of n2 in 5.0 h" in why for why in world.reasons("n2"))
    world.run(minutes=62, step_s=60)
    assert world.story("drain") == ["drain"]


def test_an_event_that_agent_and_ec2_tell_is_one_case() -> None:
    world = calm()
    retires(world, "n2", 3 * HOUR_S)
    told = retirement(world, world.node("n2").instance_id, 3 * HOUR_S)
    world.node("n2").reports(told.fault, told.severity, told.remedy, subject=told.subject, evidence=told.evidence)
    world.run(minutes=2)
    assert [case.fault for case in world.cases("n2")] == ["ec2.event"]
    assert world.story("launch") == ["launch"]


def test_an_event_that_is_put_off_is_waited_for_anew() -> None:
    world = calm()
    retires(world, "n2", 5 * HOUR_S)
    world.run(minutes=30, step_s=60)
    retires(world, "n2", 48 * HOUR_S)
    world.run(minutes=60, step_s=60)
    assert world.story() == []
    (case,) = world.cases("n2")
    assert any("in 47.0 h" in why for why in world.reasons("n2"))
    assert case.subject.endswith(EVENT)


def test_an_event_far_away_does_not_hide_what_is_wrong_now() -> None:
    world = calm()
    retires(world, "n2", 10 * 24 * HOUR_S)
    world.run(seconds=10)
    far = world.cloud[world.node("n2").instance_id]
    near = retirement(world, world.node("n2").instance_id, 0.5 * HOUR_S, "instance-event-2", "system-maintenance")
    near = dataclasses.replace(near, remedy=Remedy.NONE)
    standing = StandingFinding(finding=near, first_at=world.clock(), last_at=world.clock())
    world.cloud[world.node("n2").instance_id] = (*far, standing)
    world.run(seconds=10)
    (case,) = world.cases("n2")
    assert (case.subject.split()[1], world.story("drain")) == ("instance-event-2", ["drain"])
    assert world.story("launch") == []


def test_an_event_that_is_told_by_nobody_any_more_drains_no_silent_node() -> None:
    world = calm()
    mute(world, "n2")
    world.run(seconds=30)
    retires(world, "n2", 5 * HOUR_S)
    world.run(seconds=10)
    world.cloud.clear()
    world.run(minutes=8 * 60, step_s=60)
    assert world.story() == []
    assert any("told by nobody now" in why for why in world.reasons("n2"))


def test_a_node_that_an_operator_returned_stays_in_service_after_a_restart_of_ours() -> None:
    world = calm()
    world.submit(nodes=3, auto_resume=None)
    world.run(seconds=5)
    retires(world, "n2", 3 * HOUR_S)
    world.run(seconds=10)
    assert world.story("drain") == ["drain"]
    world.slurm.resume("n2")
    world.run(seconds=10)
    assert world.cases("n2")[-1].why.startswith("somebody returned the node")
    world.restart_controller()
    retires(world, "n2", 3 * HOUR_S)  # first seen again, for all that a new process knows
    world.run(minutes=5)
    assert world.story("drain") == ["drain"]
