"""What the engine takes from agents and hooks, and what it writes down."""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path
from typing import Any

import pytest

from nodewatch.controller.engine import Engine
from nodewatch.errors import JournalError
from nodewatch.journal.file import Journal
from nodewatch.model.health import Remedy, Severity
from nodewatch.model.ledger import Step
from nodewatch.policy.rules import Rules
from nodewatch.testing import FakeClock, FakeEc2, FakeSlurm, MemoryJournal, World
from nodewatch.testing.machines import speak

HEALTHY = {"state": "healthy", "since": 1.0}


def message(node: str = "n1", *events: dict[str, Any], **more: Any) -> dict[str, Any]:
    base = {"node": node, "boot_id": "b1", "instance_id": "i-0001", "events": list(events), "verdict": HEALTHY}
    return {**base, **more}


def event(number: int, kind: str = "hello", **more: Any) -> dict[str, Any]:
    return {"id": f"b1:{number}", "at": 1_700_000_000.0 + number, "kind": kind, **more}


def kinds(world: World) -> list[str]:
    return [record.kind for record in world.journal.records]


def test_an_event_that_comes_again_is_accepted_and_not_written_again() -> None:
    world = World()
    for _ in range(3):
        accepted, _, _ = world.engine.receive_agent(message("n1", event(1), event(2, "hook_denied", reason="r")))
        assert accepted == ["b1:1", "b1:2"]
    assert kinds(world) == ["started", "hello", "hook_denied"]

    world.restart_controller()
    accepted, _, _ = world.engine.receive_agent(message("n1", event(2, "hook_denied", reason="r"), event(3)))
    assert accepted == ["b1:2", "b1:3"]
    assert kinds(world)[3:] == ["started", "hello"], "ids are known over a restart"


def test_what_is_new_hurries_the_next_tick() -> None:
    world = World()

    def is_news(**more: Any) -> bool:
        return world.engine.receive_agent(message(**more))[2]

    assert is_news(), "an agent that was never heard"
    assert not is_news()
    assert is_news(verdict={"state": "failed", "since": 2.0})
    assert not is_news(verdict={"state": "failed", "since": 2.0})
    assert is_news(boot_id="b2")
    assert not is_news(boot_id="b2", verdict=None), "no verdict is no news, and the last one stands"


def test_an_agent_cannot_write_records_of_our_own() -> None:
    world = World()
    forged = {"action": {"action": "launch", "key": "k", "node": "n1", "launch_template": "t"}, "key": "k"}
    events = [event(i, kind, **forged) for i, kind in enumerate(["case", "intended", "done", "judged", "held"])]
    accepted, _, _ = world.engine.receive_agent(message("n1", *events))

    assert len(accepted) == 5
    assert kinds(world) == ["started", *["reported"] * 5]
    assert [record.data["what"] for record in world.journal.records[1:]] == [
        "case",
        "intended",
        "done",
        "judged",
        "held",
    ]
    assert world.engine.ledger.actions == {}
    world.restart_controller()
    world.run(seconds=3)


def test_an_event_cannot_overwrite_number_or_machine() -> None:
    world = World()
    world.engine.receive_agent(message("n1", event(1, n=99, v=7, node="n3", boot_id="b9", instance_id="i-9")))
    record = world.journal.records[-1]
    assert (record.number, record.kind, record.at) == (2, "hello", 1_700_000_001.0)
    assert (record.data["node"], record.data["boot_id"], record.data["instance_id"]) == ("n1", "b1", "i-0001")


def test_a_machine_without_an_id_has_none() -> None:
    world = World()
    world.engine.receive_agent(message("n1", event(1), instance_id=None, boot_id=None))
    known = world.engine.ledger.agents["n1"]
    assert (known.instance_id, known.boot_id) == ("", "")


def engine_on(path: Path, clock: FakeClock) -> tuple[Engine, Journal]:
    journal = Journal(path)
    engine = Engine(
        journal=journal, past=journal.take_past(), slurm=FakeSlurm(clock), ec2=None, rules=Rules(), clock=clock
    )
    return engine, journal


def test_what_was_learnt_is_what_is_read_again_from_a_real_file(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    engine, journal = engine_on(path, FakeClock())
    engine.receive_agent(message("n1", event(1), event(2, "verdict", verdict=HEALTHY)))
    start = {"v": 1, "kind": "job_started", "at": 5.0, "job_id": 17, "restart_count": 0, "nodes": "n[1-2]"}
    engine.receive_hook({**start, "auto_resume": "3", "user": "ada", "partition": "train"})
    engine.receive_hook({**start, "kind": "job_ended", "at": 9.5, "exit_code": "1:0"})
    learnt, story = engine.ledger, list(engine.story)
    journal.close()

    again, journal = engine_on(path, FakeClock())
    assert again.ledger == learnt
    assert list(again.story)[:-1] == story
    journal.close()


def test_a_record_that_cannot_be_understood_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text('{"v":1,"n":1,"at":1.0,"kind":"case","case":{"node":"n1"}}\n')
    with pytest.raises(JournalError, match=r"journal record 1 \(case\) cannot be understood .*: move the journal away"):
        engine_on(path, FakeClock())


def test_the_machine_that_was_replaced_does_not_speak_for_its_successor() -> None:
    world = World(nodes=4, spares=1)
    world.run(seconds=3)
    old = world.node("n2").instance_id
    world.node("n2").loses_gpu()
    world.run(seconds=20)
    (case,) = world.cases("n2")
    assert case.step is Step.BOOTING
    assert case.old_instance == old
    before = len(world.journal.records)

    stale = message("n2", event(77, "verdict", verdict=HEALTHY), instance_id=old, boot_id=f"{old}-0")
    accepted, requests, is_news = world.engine.receive_agent(stale)
    assert accepted == ["b1:77"], "or it would send them for ever"
    assert (requests, is_news) == ([], False)
    assert len(world.journal.records) == before

    accepted, _, is_news = world.engine.receive_agent(message("n2", event(78), instance_id=case.new_instance))
    assert (accepted, is_news) == (["b1:78"], True)


def test_hook_messages() -> None:
    world = World()
    start = {"v": 1, "kind": "job_started", "at": 5.0, "job_id": "17", "restart_count": "0", "nodes": "n[1-2]"}
    world.engine.receive_hook({**start, "auto_resume": None})
    assert world.engine.ledger.jobs == {}, "a job without the flag is written down and not remembered"
    world.engine.receive_hook({**start, "auto_resume": "default", "n": 99})
    job = world.engine.ledger.jobs[17]
    assert (job.nodes, job.budget, job.started_at, job.ended_at) == (("n1", "n2"), "default", 5.0, None)

    def ended_at() -> float | None:
        return world.engine.ledger.jobs[17].ended_at

    world.engine.receive_hook({"v": 1, "kind": "job_ended", "at": 9.0, "job_id": 17, "restart_count": 7})
    assert ended_at() is None, "the end of another run"
    world.engine.receive_hook({"v": 1, "kind": "job_ended", "at": 9.0, "job_id": 17, "restart_count": 0})
    assert ended_at() == 9.0
    assert [record.number for record in world.journal.records] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "bad",
    [
        {},
        {"kind": "case"},
        {"kind": "job_started"},
        {"kind": "job_started", "job_id": "x"},
        {"kind": "job_started", "job_id": 1, "nodes": "n[9-1]"},
        {"kind": "job_started", "job_id": 1, "at": -1},
        {"kind": "job_started", "job_id": 1, "at": True},
    ],
)
def test_a_bad_hook_message_is_refused_before_it_is_written(bad: dict[str, Any]) -> None:
    world = World()
    with pytest.raises((KeyError, ValueError, TypeError)):
        world.engine.receive_hook(bad)
    assert kinds(world) == ["started"]


def test_reasons_are_written_when_they_change_and_not_when_they_count_down() -> None:
    world = World(nodes=4, spares=0, rules=Rules(mode="act", max_out_share=1.0, shared_settle_s=30))
    world.run(seconds=3)
    world.node("n2").reports("filesystem.hung", Severity.DEGRADED, Remedy.HUMAN, "/fsx")
    before = len(world.journal.records)
    world.run(seconds=20)
    held = [record for record in world.journal.records[before:] if record.kind == "held"]
    assert len(held) == 1, "the seconds that are left to wait are no news"
    assert "waiting 30 s to see" in json.dumps(held[0].data)
    assert any("waiting 1" in why for why in world.reasons("n2")), "while the operator sees them count"

    world.run(seconds=60)
    later = [record for record in world.journal.records[before:] if record.kind == "held"]
    shapes = [json.dumps(record.data["held"]) for record in later]
    assert all(one != next_one for one, next_one in itertools.pairwise(shapes))


def test_nothing_to_do_writes_nothing() -> None:
    world = World(nodes=4, spares=1)
    world.run(seconds=90)
    before = len(world.journal.records)
    world.run(minutes=10)
    assert len(world.journal.records) == before


def test_an_action_is_announced_before_it_is_done_and_a_full_journal_stops_it() -> None:
    world = World(nodes=4, spares=0)
    world.run(seconds=3)
    world.node("n2").loses_gpu()
    speak(world)
    calls = list(world.slurm.calls)
    world.journal.full = True
    with pytest.raises(JournalError):
        world.engine.tick()
    assert world.slurm.calls == calls
    world.journal.full = False
    world.engine.tick()
    assert world.slurm.calls != calls


def test_a_template_taken_out_of_the_configuration_does_not_stop_the_others(tmp_path: Path) -> None:
    """A case that had begun a replacement asks for EC2, which is not there any more: it is told, and the tick goes on."""
    world = World(nodes=6, spares=0)
    world.run(seconds=3)
    world.node("n2").loses_gpu()
    world.ec2.no_capacity = True
    world.run(seconds=10)
    engine = Engine(
        journal=world.journal,
        past=list(world.journal.records),
        slurm=world.slurm,
        ec2=None,
        rules=world.rules,
        clock=world.clock,
    )
    world.clock.advance(700)
    engine.tick()
    failed = [record for record in world.journal.records if record.kind == "failed"]
    assert "EC2 is not configured" in failed[-1].data["error"]


def test_a_picture_of_ec2_serves_for_its_period() -> None:
    class Counting(FakeEc2):
        reads = 0

        def instances(self) -> Any:
            self.reads += 1
            return super().instances()

    clock, ec2 = FakeClock(), Counting()
    engine = Engine(
        journal=MemoryJournal(),
        past=[],
        slurm=FakeSlurm(clock),
        ec2=ec2,
        rules=Rules(),
        clock=clock,
        ec2_period_s=10.0,
    )
    for _ in range(25):
        engine.tick()
        clock.advance(1.0)
    assert ec2.reads == 3

    ec2.outage = True
    errors = [engine.snapshot.ec2_error]
    clock.advance(10.0)
    engine.tick()
    errors.append(engine.snapshot.ec2_error)
    assert errors == [None, "EC2 could not be asked: connection refused"]


def test_an_agent_known_from_before_the_restart_gets_its_time_to_be_heard() -> None:
    world = World(nodes=3, spares=0)
    world.run(seconds=3)
    world.engine.receive_agent(message("n1", event(1), instance_id="i-0001", boot_id="i-0001-0"))
    world.clock.advance(3600)
    world.restart_controller()
    view = world.engine._agents["n1"]
    assert view.heard_at == world.clock()
    assert view.verdict is None


def test_many_dead_machines_are_looked_for_at_once() -> None:
    world = World(nodes=100, spares=0, rules=Rules(mode="act"))
    world.run(seconds=1)
    looked: list[str] = []

    def reach(node: str, _address: str) -> bool:
        looked.append(node)
        time.sleep(0.1)
        return node == "n7"

    engine = Engine(
        journal=MemoryJournal(), past=[], slurm=world.slurm, ec2=None, rules=world.rules, clock=world.clock, reach=reach
    )
    for index in range(1, 101):
        engine.receive_agent(message(f"n{index}", instance_id=f"i-{index}", boot_id="b"))
    world.clock.advance(20)
    began = time.monotonic()
    engine.tick()
    rounds = len(looked) / 100
    assert time.monotonic() - began < 1.0 * rounds
    assert engine.snapshot.unreachable == {f"n{index}" for index in range(1, 101)} - {"n7"}
