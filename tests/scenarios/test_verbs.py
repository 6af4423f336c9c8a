"""Operators' verbs: replace, reboot, drain, return, pause and resume, and how they live with everything else."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from nodewatch.controller.questions import Questions
from nodewatch.model.health import Remedy, Severity
from nodewatch.model.ledger import Step
from nodewatch.policy.rules import Rules
from nodewatch.testing import World

ROOT = 0


def asks(world: World, **question: Any) -> dict[str, Any]:
    """What root is answered on the controller's socket."""
    questions = Questions(world.engine, may_act={ROOT}, problems=list, clock=world.clock, wake=lambda: None)
    return dict(questions.answer(question, ROOT))


def verb(world: World, word: str, *nodes: str, **more: Any) -> dict[str, Any]:
    return asks(world, ask="verb", verb=word, nodes=list(nodes), **more)


def healthy(**rules: object) -> World:
    base = Rules(mode="act", max_out_share=1.0, sweep_every_s=0.0)
    world = World(nodes=4, spares=0, rules=dataclasses.replace(base, **rules))  # type: ignore[arg-type]
    world.run(seconds=3)
    return world


def test_a_dry_run_shows_the_jobs_and_does_nothing() -> None:
    world = healthy()
    job = world.submit(nodes=2, auto_resume="3")
    world.run(seconds=3)
    before = len(world.journal.records)
    told = verb(world, "replace", "n1", "n3", dry_run=True)

    assert [(item["job"], item["nodes"], item["auto_resume"]) for item in told["jobs"]] == [(job, ["n1"], True)]
    assert [item["action"] for item in told["would"]["actions"]] == ["drain", "drain"]
    assert not told["done"]
    assert len(world.journal.records) == before
    assert world.slurm.calls == []


def test_replace_waits_for_the_job_and_brings_another_machine() -> None:
    world = healthy()
    job = world.submit(nodes=1, auto_resume=None)
    world.run(seconds=3)
    old = world.node("n1").instance_id
    assert verb(world, "replace", "n1", reason="noisy fan")["done"]
    world.run(minutes=2)
    assert world.job(job).is_running
    assert world.slurm_node("n1").is_out
    assert any("still busy with" in why for why in world.reasons("n1"))

    world.slurm.end_job(job, "COMPLETED", 0)
    world.run(minutes=5)
    assert world.node("n1").instance_id != old
    assert not world.slurm_node("n1").is_out
    assert world.engine.ledger.wishes == {}
    assert [case.fault for case in world.cases("n1")] == ["operator.replace"]


def test_force_waits_for_no_job_and_no_limit() -> None:
    world = healthy(max_out=0)
    job = world.submit(nodes=1, auto_resume=None)
    world.run(seconds=3)
    old = world.node("n1").instance_id
    verb(world, "replace", "n1", force=True)
    world.run(minutes=5)

    assert not world.job(job).is_running or world.job(job).restart_count == 1
    assert world.node("n1").instance_id != old


def test_a_second_reboot_is_a_reboot_and_not_a_replacement() -> None:
    world = healthy()
    for turn in (1, 2):
        assert verb(world, "reboot", "n2")["done"]
        world.run(minutes=8)
        assert world.story("reboot") == ["reboot"] * turn
        assert world.engine.ledger.wishes == {}
    assert world.ec2.launched == []


def test_a_drained_node_is_the_operators_until_it_is_returned() -> None:
    world = healthy()
    verb(world, "drain", "n2", reason="new fan")
    world.run(seconds=3)
    assert world.slurm_node("n2").reason == "new fan (root)"
    world.node("n2").loses_gpu()
    world.run(minutes=2)
    assert world.ec2.launched == []
    assert "GPU-0 stands against n2: --force returns it all the same" in verb(world, "return", "n2")["error"]

    world.node("n2").recovers()
    world.run(seconds=3)
    assert verb(world, "return", "n2")["done"]
    world.run(seconds=3)
    assert not world.slurm_node("n2").is_out
    assert world.engine.ledger.wishes == {}


def test_a_return_by_force_ends_the_repair_that_waits_and_holds() -> None:
    world = healthy()
    world.node("n2").reports("gpu.strange", Severity.FATAL, Remedy.HUMAN)
    world.run(seconds=10)
    assert world.cases("n2")[-1].step is Step.WAITING_FOR_HUMAN
    verb(world, "return", "n2", force=True)
    world.run(minutes=5)

    assert not world.slurm_node("n2").is_out
    assert world.cases("n2")[-1].step is Step.CLOSED


def test_replace_of_a_node_that_somebody_drained_is_meant() -> None:
    world = healthy()
    world.slurm.operator("n2", "drain", "bad fan, Ada")
    world.run(seconds=3)
    old = world.node("n2").instance_id
    verb(world, "replace", "n2")
    world.run(minutes=5)
    assert world.node("n2").instance_id != old


@pytest.mark.parametrize(
    ("word", "nodes", "words"),
    [
        ("replace", ["n9"], "no node n9 is known"),
        ("return", ["n1"], "n1 is in service already"),
        ("drain", ["n1", "n2[", "n3"], "n2["),
        ("explode", ["n1"], "use one of replace, reboot, drain, return"),
        ("drain", [], "no node was named"),
    ],
)
def test_what_makes_no_sense_is_refused_whole(word: str, nodes: list[str], words: str) -> None:
    world = healthy()
    before = len(world.journal.records)
    assert words in verb(world, word, *nodes)["error"]
    assert len(world.journal.records) == before


def test_one_slip_in_a_hostlist_does_no_half() -> None:
    world = healthy()
    verb(world, "drain", "n1", reason="fan")
    world.run(seconds=3)
    told = verb(world, "drain", "n[1-2]", reason="fan")
    assert told["error"] == "nothing is done: n1 is out of service already (fan (root))"
    world.run(seconds=3)
    assert not world.slurm_node("n2").is_out


def test_a_reason_of_ours_is_not_an_operators() -> None:
    world = healthy()
    assert "what nodewatch itself writes" in verb(world, "drain", "n1", reason="nodewatch: mine")["error"]


def test_pauses_hold_their_scope_back_and_end_by_themselves() -> None:
    world = healthy()
    assert asks(world, ask="pause", scopes=["node:n2"], seconds=600, reason="driver")["paused"]
    world.node("n2").loses_gpu()
    world.run(minutes=5)
    assert world.story("drain") == []
    assert any("repairs of node n2 were paused by root (driver)" in why for why in world.reasons("n2"))

    world.run(minutes=6)
    assert world.story("drain") == ["drain"]


def test_a_pause_of_the_cluster_outlives_the_controller_until_it_is_resumed() -> None:
    world = healthy()
    asks(world, ask="pause", scopes=[])
    world.restart_controller()
    world.node("n2").loses_gpu()
    world.run(minutes=5)
    assert world.story("drain") == []
    assert "is not paused" in asks(world, ask="resume", scopes=["partition:train"])["error"]

    assert asks(world, ask="resume", scopes=[])["resumed"] == ["cluster"]
    world.run(minutes=1)
    assert world.story("drain") == ["drain"]


def test_a_pause_of_a_partition_that_is_not_there_is_a_slip() -> None:
    assert "partition:trian: no such partition" in asks(healthy(), ask="pause", scopes=["partition:trian"])["error"]


def test_the_plan_of_an_observer_as_if_it_acted() -> None:
    world = healthy(mode="observe")
    world.node("n2").loses_gpu()
    world.run(seconds=3)
    assert asks(world, ask="plan")["actions"] == []
    told = asks(world, ask="plan", as_if_acting=True)
    assert [item["text"].split(" (")[0] for item in told["actions"]] == ["drain n2"]
    world.run(seconds=3)
    assert world.slurm.calls == []


def test_only_those_who_may_act_act_and_anyone_may_try() -> None:
    world = healthy()
    questions = Questions(world.engine, may_act={ROOT}, problems=list, clock=world.clock, wake=lambda: None)
    ask = {"ask": "verb", "verb": "drain", "nodes": ["n1"]}
    assert "may look and not act" in questions.answer(ask, 12345)["error"]
    assert not questions.answer({**ask, "dry_run": True}, 12345)["done"]
    assert "may look and not act" in questions.answer({"ask": "pause", "scopes": []}, 12345)["error"]
    assert world.engine.ledger.pauses == {}
