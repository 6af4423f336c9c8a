"""Machines that were launched and did not become nodes: each way to fail by its name, tried again within the budget."""

from __future__ import annotations

from nodewatch.controller import views
from nodewatch.model.health import Remedy, Severity
from nodewatch.policy import bootstrap
from nodewatch.policy.rules import Rules
from nodewatch.testing import World


def broken(**rules: object) -> World:
    """A cluster whose n2 is about to be replaced; the new machine never speaks."""
    world = World(nodes=3, spares=0, rules=Rules(mode="act", max_out_share=1.0, sweep_every_s=0.0, **rules))  # type: ignore[arg-type]
    world.run(seconds=3)
    world.boot_s = 1e9
    world.node("n2").loses_gpu()
    world.run(seconds=30)
    return world


def tries(world: World) -> list[tuple[str, str]]:
    return [(one["cause"], one["said"]) for one in bootstrap.tries(world.cases("n2")[-1])]


def test_a_machine_that_nobody_hears_of() -> None:
    world = broken(launch_timeout_s=600.0)
    world.boot_s = 60.0
    world.run(minutes=15)
    assert tries(world) == [("never_registered", "its console is empty")]
    assert world.cases("n2")[-1].step.value == "closed"
    assert len(world.ec2.launched) == 2


def test_a_lifecycle_script_that_says_so_on_the_console_is_not_waited_for() -> None:
    world = broken(launch_timeout_s=1200.0)
    (first,) = world.ec2.launched
    world.ec2.consoles[first] = "booting\r\n[ 71.2] cloud-init[812]: nodewatch bootstrap: FAILED: /fsx is not there\r\n"
    world.boot_s = 60.0
    world.run(minutes=6)
    assert tries(world) == [("lifecycle_script", "/fsx is not there")]
    assert first in world.ec2.terminated, "a quarter of the time was waited"
    kept = [r.data["result"] for r in world.journal.records if r.kind == "done" and "console" in r.data["result"]]
    assert all("/fsx is not there" in one["console"] for one in kept)


def test_a_script_that_was_run_again_and_went_through_has_not_failed() -> None:
    world = broken(launch_timeout_s=1200.0)
    (first,) = world.ec2.launched
    world.ec2.consoles[first] = "nodewatch bootstrap: FAILED: not yet\nnodewatch bootstrap: complete\n"
    world.run(minutes=10)
    assert tries(world) == []
    assert world.ec2.terminated[-1:] != [first]


def test_the_agents_word_of_its_script_counts_as_well() -> None:
    world = broken()
    world.boot_s = 60.0
    machine = world.node("n2")
    machine.alive, machine.boots_at = True, 0.0
    world.slurm.set_responding("n2", True)
    hello = {"id": "b:1", "at": world.clock(), "kind": "hello", "bootstrap": "the licence server does not answer"}
    machine.pending.append(hello)
    world.run(seconds=1)
    assert tries(world) == [("lifecycle_script", "the licence server does not answer")]
    world.run(minutes=5)
    assert world.cases("n2")[-1].step.value == "closed"


def test_an_agent_without_a_slurmd() -> None:
    world = broken(register_timeout_s=300.0)
    world.boot_s = 60.0
    machine = world.node("n2")
    machine.alive, machine.boots_at = True, 0.0
    world.run(seconds=10)
    assert world.reasons("n2") == ["waiting for slurmd to register"]
    machine.reports("host.unit_down", Severity.WARN, Remedy.HUMAN)
    world.run(minutes=6)
    assert tries(world) == [("slurmd_not_registered", "its agent says host.unit_down")]


def test_deep_checks_that_fail_are_tried_on_other_machines_until_the_budget_is_spent() -> None:
    world = broken(attempts=2)
    world.boot_s = 60.0
    world.next_deep_checks = False
    machine = world.node("n2")
    machine.deep_checks, machine.boots_at = False, world.clock() + 5
    world.run(minutes=10)
    case = world.cases("n2")[-1]
    assert [cause for cause, _ in tries(world)] == ["deep_checks", "deep_checks"]
    assert (len(world.ec2.launched), case.step.value, case.rung.word) == (2, "waiting_for_human", "human")
    shown = views.explain("n2", world.engine.snapshot, world.engine.ledger, (), world.rules, [], world.clock())
    assert [one["words"] for one in shown["now"]["cases"][0]["tries"]] == ["deep checks failed"] * 2


def test_a_machine_is_not_given_up_while_ec2_cannot_be_read() -> None:
    world = broken(launch_timeout_s=60.0)
    world.ec2.outage = True
    world.run(minutes=5)
    assert tries(world) == []
    assert any("EC2 could not be read" in why for why in world.reasons("n2"))
    world.ec2.outage = False
    world.run(seconds=5)
    assert [cause for cause, _ in tries(world)] == ["never_registered"]
