"""Pair tests of idle nodes in a whole cluster: the slow node is named and repaired, and users' jobs always come first."""

from __future__ import annotations

import dataclasses

from nodewatch.cli import status
from nodewatch.config.pairs import PairsConfig
from nodewatch.controller import views
from nodewatch.controller.metrics import EngineCollector
from nodewatch.model.ledger import Step
from nodewatch.policy.rules import Rules
from nodewatch.testing import World

ALL = ("n1", "n2", "n3", "n4", "n5", "n6")


def ready(nodes: int = 6, **more: object) -> World:
    world = World(nodes=nodes, spares=0, **more)  # type: ignore[arg-type]
    world.run(seconds=3)
    return world


def results(world: World) -> list[tuple[str, str]]:
    """(pair, result) of every run that was written down."""
    return [
        ("+".join(sorted(record.data["nodes"])), record.data["result"])
        for record in world.journal.records
        if record.kind == "pair_ran"
    ]


def verdict(world: World, key: str) -> str:
    judged = world.engine.ledger.pair_tests[key].judgement
    assert judged is not None
    return judged.why


def test_the_slow_node_is_named_drained_rebooted_and_returned() -> None:
    world = ready()
    world.slow_link("n2")
    key = world.ask_pairs(ALL)
    world.run(minutes=1)
    assert results(world) == [
        ("n1+n2", "slow"),
        ("n3+n4", "good"),
        ("n5+n6", "good"),
        ("n1+n3", "good"),
        ("n2+n4", "slow"),
    ]
    assert "n2 is the one" in verdict(world, key)
    case = world.cases("n2")[0]
    assert (case.family, case.fault, case.subject) == ("nccl", "nccl.slow_node", "n2")
    assert {pair["with"] for pair in case.evidence["pairs"]} == {"n1", "n4"}
    assert world.story("drain", "reboot") == ["drain", "reboot"]

    world.pairs.slow.clear()
    world.run(minutes=5)
    assert world.cases("n2")[0].step is Step.CLOSED
    assert world.slurm_node("n2").is_idle
    assert [world.cases(name) for name in ("n1", "n3", "n4", "n5", "n6")] == [[]] * 5


def test_a_reboot_that_did_not_help_is_found_again_and_goes_one_rung_higher() -> None:
    world = ready()
    world.slow_link("n2")
    world.ask_pairs(ALL)
    world.run(minutes=6)
    assert world.cases("n2")[0].step is Step.CLOSED
    world.ask_pairs(ALL)
    world.run(minutes=2)
    assert world.cases("n2")[1].rung.word == "replace"


def test_a_slow_way_between_two_good_nodes_blames_nobody() -> None:
    world = ready()
    world.slow_path("n1", "n2")
    key = world.ask_pairs(ALL)
    world.run(minutes=2)
    assert "n1 and n2 were slow with each other and good with others" in verdict(world, key)
    assert world.engine.ledger.pair_culprits == {}
    assert world.engine.ledger.cases == {}


def test_a_job_that_comes_ends_the_test_and_nobody_is_blamed() -> None:
    world = ready()
    world.slow_link("n2")
    key = world.ask_pairs(ALL)
    world.run(seconds=10)
    assert len(world.pairs.jobs()) == 3
    job = world.submit(nodes=5, auto_resume=None)
    world.run(seconds=4)
    assert world.job(job).is_running, "a user's job waits for no test"
    assert results(world) == [("n1+n2", "gave_way"), ("n3+n4", "gave_way"), ("n5+n6", "gave_way")]
    world.run(minutes=10)
    assert world.engine.ledger.pair_tests[key].is_open
    assert world.engine.ledger.cases == {}

    world.slurm.end_job(job, "COMPLETED", 0)
    world.run(minutes=12)
    assert "n2 is the one" in verdict(world, key)


def test_nodes_with_jobs_are_left_alone_and_the_others_paired() -> None:
    world = ready()
    job = world.submit(nodes=2, auto_resume=None)
    world.run(seconds=3)
    world.ask_pairs(ALL)
    world.run(minutes=2)
    assert results(world) == [("n3+n4", "good"), ("n5+n6", "good")]
    world.slurm.end_job(job, "COMPLETED", 0)
    world.run(minutes=2)
    assert results(world)[2:] == [("n1+n2", "good")]


def test_a_controller_killed_between_rounds_neither_loses_nor_repeats_what_ran() -> None:
    world = ready()
    world.slow_link("n5")
    key = world.ask_pairs(ALL)
    while len(results(world)) < 3:
        world.run(seconds=1)
    world.restart_controller()
    world.run(minutes=2)
    assert sorted(results(world)[:3]) == [("n1+n2", "good"), ("n3+n4", "good"), ("n5+n6", "slow")]
    assert len(results(world)) == 5
    assert "n5 is the one" in verdict(world, key)
    world.restart_controller()
    world.run(seconds=5)
    assert len(world.cases("n5")) == 1


def test_a_controller_killed_during_a_run_runs_it_again() -> None:
    world = ready()
    key = world.ask_pairs(ALL)
    world.run(seconds=10)
    world.restart_controller()
    assert world.pairs.jobs() == [], "what nobody would hear of is ended"
    world.run(minutes=2)
    assert results(world) == [("n1+n2", "good"), ("n3+n4", "good"), ("n5+n6", "good")]
    assert verdict(world, key) == "all 6 nodes are good"


def test_no_good_pair_blames_nobody() -> None:
    world = ready(4)
    world.slow_link("n1")
    world.slow_link("n3")
    key = world.ask_pairs(("n1", "n2", "n3", "n4"))
    world.run(minutes=2)
    assert "the fabric, the test or the floor" in verdict(world, key)
    assert world.engine.ledger.cases == {}


def test_a_culprit_stands_until_a_later_pair_run_of_it_is_good() -> None:
    world = ready(rules=Rules(mode="observe"))
    world.slow_link("n2")
    world.ask_pairs(ALL)
    world.run(minutes=2)
    assert set(world.engine.ledger.pair_culprits) == {"n2"}
    assert [case.step for case in world.cases("n2")] == [Step.HELD]
    assert world.slurm_node("n2").is_idle, "only watched"

    world.pairs.slow.clear()
    world.engine.note(
        "pair_ran",
        {
            "key": "pairs:0",
            "nodes": ["n2", "n3"],
            "result": "good",
            "round": 1,
            "why": "",
            "size": None,
            "busbw_gbps": None,
            "floor_gbps": None,
            "floor_source": "",
            "machines": {},
        },
    )
    world.run(seconds=5)
    assert world.engine.ledger.pair_culprits == {}
    assert world.cases("n2")[0].step is Step.CLOSED


def test_a_withdrawn_test_ends_and_judges_nobody() -> None:
    world = ready()
    key = world.ask_pairs(ALL)
    world.run(seconds=5)
    world.engine.note("pairs_withdrawn", {"keys": [key]})
    world.run(seconds=5)
    assert world.pairs.jobs() == []
    assert {result for _, result in results(world)} == {"gave_way"}
    world.run(minutes=5)
    assert len(results(world)) == 3


def test_a_test_whose_nodes_stay_busy_is_judged_by_what_ran() -> None:
    world = ready(3)
    world.submit(nodes=2, auto_resume=None)
    world.run(seconds=3)
    key = world.ask_pairs(("n1", "n2", "n3"))
    world.run(minutes=6 * 60 + 2, step_s=60)
    assert "time ran out" in verdict(world, key)


def test_the_sweep_tests_idle_nodes_once_a_period_and_never_while_only_watching() -> None:
    for mode, tests in (("act", 2), ("observe", 0)):
        world = World(nodes=4, spares=0, rules=Rules(mode=mode, max_out_share=1.0, sweep_every_s=0.0))
        world.pairs_config = dataclasses.replace(PairsConfig(), sweep_every_s=86400.0)
        world.restart_controller()
        world.run(minutes=25 * 60, step_s=60)
        asked = [record for record in world.journal.records if record.kind == "pairs_asked"]
        assert len(asked) == tests, mode
        assert all(record.data["by"] == "sweep" for record in asked)


def measured(world: World) -> dict[str, float]:
    """The pair tests' metrics, by name and label."""
    return {
        sample.name.removeprefix("nodewatch_pair_tests_") + "".join(sample.labels.values()): sample.value
        for family in EngineCollector(world.engine, world.clock).collect()
        for sample in family.samples
        if sample.name.startswith("nodewatch_pair_tests_")
    }


def test_status_and_metrics_tell_of_pair_tests() -> None:
    world = ready()
    assert measured(world)["open"] == 0
    world.slow_link("n2")
    world.ask_pairs(ALL)
    world.run(seconds=3)
    assert measured(world)["open"] == 1
    shown = views.status(world.engine.snapshot, world.engine.ledger, (), world.rules, (), world.clock())
    (line,) = [line for line in status.render(shown).splitlines() if line.startswith("pair test")]
    assert "6 nodes" in line
    assert "asked for by ada" in line

    world.run(minutes=1)
    told = measured(world)
    assert (told["open"], told["culprits"], told["runsslow"], told["runsgood"]) == (0, 1, 2, 3)
    assert told["last_ended_timestamp_seconds"] > 1_700_000_000
    shown = views.status(world.engine.snapshot, world.engine.ledger, (), world.rules, (), world.clock())
    assert "pair tests name n2" in status.render(shown).splitlines()
    world.pairs.slow.clear()
    world.run(minutes=6)
    world.ask_pairs(ALL)
    world.run(minutes=2)
    shown = views.status(world.engine.snapshot, world.engine.ledger, (), world.rules, (), world.clock())
    assert any(line.startswith("the last pair test, of 6 nodes") for line in status.render(shown).splitlines())
