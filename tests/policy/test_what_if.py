"""What the planner saw, written down and read again, and other rules over it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from nodewatch.cli.root import root
from nodewatch.journal.file import Journal
from nodewatch.model.cluster import AgentView, Instance, SlurmJob, SlurmNode, Snapshot
from nodewatch.model.health import Finding, Remedy, Severity, StandingFinding
from nodewatch.model.ledger import Ledger
from nodewatch.model.records import Record
from nodewatch.policy.fold import fold
from nodewatch.policy.picture import (
    change,
    changed,
    is_nothing,
    picture_of,
    rules_from_json,
    rules_to_json,
    snapshot_of,
)
from nodewatch.policy.plan import plan
from nodewatch.policy.rules import Group, Rules
from nodewatch.policy.what_if import Difference, Replay
from nodewatch.testing import World


def eventful(**rules: Any) -> World:
    world = World(
        nodes=6, spares=1, rules=Rules(**{"mode": "act", "max_out_share": 1.0, "sweep_every_s": 0.0, **rules})
    )
    world.submit(nodes=3, auto_resume="3")
    world.submit(nodes=2, auto_resume=None)
    world.submit(nodes=4, auto_resume="1")
    world.run(seconds=20)
    world.node("n2").loses_gpu()
    world.run(minutes=4)
    world.node("n4").crashes()
    world.run(minutes=2)
    world.restart_controller()
    world.run(minutes=3)
    return world


WORLD = eventful()
RECORDS = list(WORLD.journal.records)


def replayed(records: list[Record], rules: Rules | None = None) -> tuple[Replay, list[Difference]]:
    replay = Replay(ledger=Ledger(), rules=rules)
    return replay, list(replay.differences(records))


def test_the_rules_that_were_in_force_decide_the_same_again() -> None:
    replay, differences = replayed(RECORDS)
    assert differences == []
    assert replay.skipped == 0
    assert replay.decisions > 30
    assert replay.looks > 20


def test_it_does_so_while_it_only_watches() -> None:
    replay, differences = replayed(list(eventful(mode="observe").journal.records))
    assert differences == []
    assert replay.looks > 3


def test_other_rules_show_where_they_would_have_decided_otherwise() -> None:
    rules = dataclasses.replace(WORLD.rules, first_rung={"gpu.lost": "human", "gpu.xid.79": "human"})
    _, differences = replayed(RECORDS, rules)
    now = [text for each in differences for text in each.only_now]
    then = [text for each in differences for text in each.only_then]
    assert any("n2" in text and "human" in text for text in now)
    assert any("n2" in text and "replace" in text for text in then)


def test_what_would_have_been_done_in_place_of_watching() -> None:
    world = eventful(mode="observe")
    rules = dataclasses.replace(world.rules, mode="act")
    _, differences = replayed(list(world.journal.records), rules)
    now = [text for each in differences for text in each.only_now]
    assert sum(text.startswith("drain n2") for text in now) == 1, "a difference that stands is told once"
    assert all("held" in text for each in differences for text in each.only_then)


def test_a_picture_is_the_same_after_its_changes() -> None:
    picture = None
    for record in RECORDS:
        if record.kind == "seen":
            picture = changed(picture, record.data)
    assert picture
    engine, now = WORLD.engine, WORLD.clock()
    fresh = picture_of(engine.snapshot, engine.ledger, WORLD.rules, now)
    again = changed(picture, json.loads(json.dumps(change(picture, fresh))))
    assert again == fresh
    assert is_nothing(change(fresh, dict(fresh)))
    assert changed(None, change(fresh, {})) is None, "without a whole picture there is nothing to change"


def test_a_plan_by_the_picture_is_the_plan_by_the_snapshot() -> None:
    engine, now = WORLD.engine, WORLD.clock()
    seen = snapshot_of(picture_of(engine.snapshot, engine.ledger, WORLD.rules, now), now)
    for rules in (WORLD.rules, dataclasses.replace(WORLD.rules, sweep_every_s=1.0)):
        assert plan(seen, engine.ledger, rules, now).actions == plan(engine.snapshot, engine.ledger, rules, now).actions


def test_nothing_that_is_added_to_a_snapshot_is_forgotten() -> None:
    assert {field.name for field in dataclasses.fields(Snapshot) if field.init} == {
        "taken_at",
        "nodes",
        "jobs",
        "instances",
        "agents",
        "unreachable",
        "cloud",
        "slurm_error",
        "ec2_error",
    }, "teach nodewatch/policy/picture.py about the new one"
    node = SlurmNode(name="n1", address="10.0.0.1", states=frozenset({"IDLE"}), reason="r", partitions=("a", "b"))
    job = SlurmJob(
        job_id=7, states=frozenset({"RUNNING"}), nodes=("n1",), begins_at=5.0, array_task_id=0, is_batch=False
    )
    instance = Instance(instance_id="i-1", state="running", private_ip="10.0.0.1", node="n1")
    impaired = Finding(fault="ec2.system_impaired", subject="i-1", severity=Severity.FATAL, remedy=Remedy.REPLACE)
    snapshot = Snapshot(
        taken_at=9.0,
        nodes={"n1": dataclasses.replace(node, slurmd_started_at=3.0)},
        jobs={7: job},
        instances={"i-1": instance},
        agents={"n1": AgentView(node="n1", heard_at=9.0, boot_id="b", instance_id="i-1", verdict=None, validating="k")},
        unreachable=frozenset({"n1"}),
        cloud={"i-1": (StandingFinding(finding=impaired, first_at=4.0, last_at=4.0),)},
        ec2_error="throttled",
    )
    picture = json.loads(json.dumps(change(None, picture_of(snapshot, Ledger(), Rules(), 9.0))))
    again = changed(None, picture)
    assert again is not None
    assert snapshot_of(again, 9.0) == snapshot


def test_five_hundred_nodes_that_change_alike_are_one_line() -> None:
    before = {("node", f"n{n:03d}"): [["IDLE"], "", ["p"]] for n in range(500)}
    after = {key: [["ALLOCATED"], "", ["p"]] for key in before}
    delta = change(before, after)
    assert delta == {"full": False, "set": [["node", [["ALLOCATED"], "", ["p"]], "n[000-499]"]], "gone": []}
    assert len(json.dumps(delta)) < 200


def test_the_rules_of_ten_thousand_nodes_are_short() -> None:
    names = tuple(f"n{n}" for n in range(1, 10_001))
    rules = Rules(groups=(Group(name="g", nodes=(*names, "x*"), partition="p"),))
    told = json.loads(json.dumps(rules_to_json(rules)))
    assert len(json.dumps(told)) < 4000
    again = rules_from_json(told)
    assert set(again.groups[0].nodes) == {*names, "x*"}
    assert dataclasses.replace(again, groups=()) == dataclasses.replace(rules, groups=())


def test_a_controller_that_nothing_happens_to_writes_little() -> None:
    world = World(nodes=4, spares=1)
    world.run(minutes=2)
    before = len(world.journal.records)
    world.run(minutes=60, step_s=5)
    assert len(world.journal.records) == before


# -- the command ------------------------------------------------------------------------------------------------------


def written(directory: Path, records: list[Record], rotate_bytes: int = 1 << 30) -> None:
    journal = Journal(directory / "journal.jsonl", rotate_bytes=rotate_bytes)
    ledger = Ledger()
    for record in records:
        ledger = fold(ledger, [journal.append(record.at, record.kind, record.data)])
        journal.keep(ledger)
    journal.close()


def toml(directory: Path, text: str) -> str:
    path = directory / "other.toml"
    path.write_text(
        f"{text}\nmax_out_share = 1.0\nsweep_every_s = 0.0\n"
        '[[groups]]\nname = "compute"\nnodes = ["n[1-6]"]\npartition = "train"\nspares = 1\nlaunch_template = "compute"\n'
    )
    return str(path)


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(root, ["replay-journal", *arguments])
    return done.exit_code, done.output


def test_the_same_rules_are_exit_code_0(tmp_path: Path) -> None:
    written(tmp_path, RECORDS)
    for arguments in ((str(tmp_path),), (str(tmp_path / "journal.jsonl"),), (str(tmp_path), str(tmp_path))):
        code, text = run(*arguments)
        assert (code, text.splitlines()[-1].rpartition(": ")[2]) == (0, "the same decisions")
    assert run("--rules", toml(tmp_path, '[policy]\nmode = "act"'), str(tmp_path))[0] == 0


def test_other_rules_are_exit_code_1(tmp_path: Path) -> None:
    written(tmp_path, RECORDS)
    code, text = run("--rules", toml(tmp_path, '[policy]\nmode = "observe"'), str(tmp_path))
    assert code == 1
    assert "  - drain n2 (nodewatch:" in text
    code, text = run("--json", "--rules", toml(tmp_path, '[policy]\nmode = "observe"'), str(tmp_path))
    document = json.loads(text)
    assert code == 1
    assert document["looks"] > 20
    assert any(text.startswith("drain n2") for each in document["differences"] for text in each["only_then"])


def test_a_journal_of_many_files_and_its_later_half_alone(tmp_path: Path) -> None:
    written(tmp_path, RECORDS, rotate_bytes=5_000)
    assert run(str(tmp_path))[0] == 0
    files = sorted(tmp_path.glob("journal-*.jsonl.gz"))
    assert len(files) >= 3
    code, text = run(*map(str, files[-2:]), str(tmp_path / "journal.jsonl"))
    assert code in (0, 2), text
    if code == 2:
        assert "holds no picture" in text


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "does not exist"),
        ("", "there is no record in it"),
        ("garbage\n", "line 1 is no journal record"),
        ('{"v":1,"n":1,"at":1.0,"kind":"started","mode":"act"}\n', "holds no picture of what the controller saw"),
        ('{"v":2,"n":1,"at":1.0,"kind":"started"}\n', "install the release that wrote it"),
        ('{"v":1,"n":1,"at":1.0,"kind":"seen","after":0,"full":true}\n', "a record cannot be understood"),
    ],
)
def test_what_cannot_be_read_is_exit_code_2_and_one_sentence(tmp_path: Path, content: str | None, says: str) -> None:
    path = tmp_path / "journal.jsonl"
    if content is not None:
        path.write_text(content)
    code, text = run(str(path))
    assert code == 2
    assert says in text
    assert len(text.splitlines()) == 1
