"""Deep checks outside of repairs: first boot, the sweep over idle nodes, an operator's wish, and giving way to jobs."""

import dataclasses

from nodewatch.model import actions as act
from nodewatch.model.ledger import Step
from nodewatch.policy.rules import Rules
from nodewatch.testing import World

SWEEPING = Rules(mode="act", max_out_share=1.0, sweep_every_s=86400.0, sweep_at_once=1)


def asked(world: World) -> list[tuple[str, str]]:
    """(node, why) of every deep check that was asked for, in order."""
    done = [r.data["action"] for r in world.journal.records if r.kind == "done"]
    return [(each["node"], each["why"]) for each in done if each["action"] == "deep_check"]


def test_new_machines_are_tested_one_after_the_other_and_again_after_the_period() -> None:
    world = World(nodes=3, spares=1, rules=SWEEPING)
    world.run(minutes=2)
    assert asked(world) == [("n1", "first_boot"), ("n2", "first_boot"), ("n3", "first_boot")], "the spare as well"

    world.run(minutes=60, step_s=60)
    assert len(asked(world)) == 3

    world.run(minutes=24 * 60, step_s=60)
    assert asked(world)[3:] == [("n1", "sweep"), ("n2", "sweep"), ("n3", "sweep")]
    assert {node: tested.passed for node, tested in world.engine.ledger.tested.items()} == dict.fromkeys(
        ("n1", "n2", "n3"), True
    )


def test_no_sweep_where_jobs_wait_except_on_spares() -> None:
    world = World(nodes=3, spares=1, rules=SWEEPING)
    world.submit(nodes=2, auto_resume=None)
    world.submit(nodes=2, auto_resume=None)
    world.run(minutes=30)

    assert asked(world) == [("n3", "first_boot")]


def test_a_sweep_that_gave_way_is_not_begun_again_at_once() -> None:
    world = World(nodes=1, spares=0, rules=SWEEPING)
    while not asked(world):
        world.run(seconds=1)
    key = next(iter(world.engine.ledger.check_runs))
    world.node("n1").answered.add(key)
    told = {"node": "n1", "key": key, "passed": None, "suite": "deep", "gave_way_to": "17"}
    world.engine.note("validated", told)

    world.run(minutes=9)
    assert asked(world) == [("n1", "first_boot")]
    world.run(minutes=2)
    assert asked(world) == [("n1", "first_boot")] * 2
    assert world.engine.ledger.tested["n1"].passed


def test_a_wish_that_gave_way_is_begun_again() -> None:
    world = World(nodes=1, spares=0)
    world.run(seconds=2)
    world.engine.ask_checks(["n1"], suite="deep", by="ada")
    world.engine.tick()
    key = next(iter(world.engine.ledger.check_runs))
    world.node("n1").answered.add(key)
    told = {"node": "n1", "key": key, "passed": None, "suite": "deep", "gave_way_to": "17"}
    world.engine.note("validated", told)
    world.run(seconds=5)

    assert asked(world) == [("n1", "operator")] * 2
    assert world.engine.ledger.check_wishes == {}


def test_an_operators_wish_is_fulfilled_when_the_node_is_empty_even_while_only_watching() -> None:
    world = World(nodes=2, spares=0, rules=dataclasses.replace(SWEEPING, mode="observe"))
    job = world.submit(nodes=1, auto_resume=None)
    world.run(seconds=5)
    world.engine.ask_checks(["n1"], suite="deep", by="ada")
    world.run(seconds=20)
    assert asked(world) == []
    assert any("n1 is busy with" in why for why in world.reasons("n1"))

    world.slurm.end_job(job, "COMPLETED", 0)
    world.run(seconds=20)
    assert asked(world) == [("n1", "operator")]
    assert world.engine.ledger.check_wishes == {}
    assert world.engine.ledger.tested["n1"].passed


def test_a_wish_outlives_the_controller_and_is_fulfilled_once() -> None:
    world = World(nodes=2, spares=0)
    world.run(seconds=3)
    world.engine.ask_checks(["n1", "n2"], suite="deep", by="ada")
    world.restart_controller()
    world.run(seconds=10)
    world.restart_controller()
    world.run(minutes=3)

    assert asked(world) == [("n1", "operator"), ("n2", "operator")]


def test_a_wish_for_a_node_under_repair_says_that_the_repair_ends_with_the_same_checks() -> None:
    world = World(nodes=3, spares=0)
    world.run(seconds=3)
    world.node("n2").loses_gpu()
    world.run(seconds=5)
    world.engine.ask_checks(["n2"], suite="deep", by="ada")
    world.run(seconds=5)

    assert any("is under repair" in why for why in world.reasons("n2"))
    assert asked(world) == []


def test_a_machine_that_cannot_be_judged_goes_to_a_human_and_not_to_the_scrap() -> None:
    world = World(nodes=3, spares=0)
    world.next_deep_checks = None
    world.run(seconds=3)
    world.node("n2").loses_gpu()
    world.run(minutes=40)

    case = world.cases("n2")[-1]
    assert case.step is Step.WAITING_FOR_HUMAN
    assert "could not tell" in case.why
    assert len(world.ec2.launched) == 1, "another machine would not have made a missing tool appear"


def test_what_the_deep_checks_found_stands_on_the_case() -> None:
    world = World(nodes=3, spares=0)
    world.run(seconds=3)
    world.node("n2").loses_gpu()
    world.run(seconds=5)
    while world.cases("n2")[-1].step is not Step.VALIDATING:
        world.run(seconds=1)
    case = world.cases("n2")[-1]
    key = f"{case.case_id}:replace:validate:1.0"
    finding = {"fault": "nccl.slow", "subject": "n2", "severity": "degraded", "remedy": "reboot", "evidence": {}}
    results = [{"check": "nccl_bandwidth", "status": "findings", "findings": [finding], "error": None}]
    world.engine.note("validated", {"node": "n2", "key": key, "passed": False, "suite": "deep", "results": results})
    world.engine.tick()

    assert world.cases("n2")[-1].evidence["deep_checks"] == ["nccl.slow on n2"]
    told = [r.data["case"]["why"] for r in world.journal.records if r.kind == "case"]
    assert "the deep checks failed (nccl.slow on n2): try 2 of 3" in told


def test_the_action_survives_the_journal() -> None:
    action = act.DeepCheck(key="k", node="n1", suite="deep", why="first_boot", instance_id="i-1")
    assert act.from_json(act.to_json(action)) == action
    assert act.describe(action) == "ask for deep checks of n1 (first boot)"
