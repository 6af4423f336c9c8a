"""Hardware that fails again and again: by its identity, whatever node name it bears."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from nodewatch.cli.root import root
from nodewatch.journal.file import Journal
from nodewatch.model.health import Finding, Remedy, Severity
from nodewatch.model.ledger import Case, Rung, Step
from nodewatch.model.records import Record
from nodewatch.policy.fold import case_to_json
from nodewatch.policy.history import hardware_history, identities
from nodewatch.policy.ladder import opening_rung
from nodewatch.policy.rules import Group, Rules
from nodewatch.testing import World

NOW = 10_000_000.0
DAY = 86400.0
UUID = "GPU-0a1b2c3d-1111-2222-3333-444455556666"
OTHER = "GPU-ffffffff-1111-2222-3333-444455556666"
GROUP = Group(name="g", nodes=("n1", "n2"), partition="p", launch_template="t")
RULES = Rules(groups=(GROUP, Group(name="bare", nodes=("b1",), partition="p")))


def case(days_ago: float, *, node: str = "n1", **values: Any) -> Case:
    at = NOW - days_ago * DAY
    fields: dict[str, Any] = {
        "case_id": f"{node}.{values.get('family', 'gpu')}.{at:.0f}",
        "family": "gpu",
        "fault": "gpu.xid.48",
        "subject": UUID,
        "severity": Severity.FATAL,
        "rung": Rung.REBOOT,
        "step": Step.CLOSED,
        "step_at": at + 600,
        "tried": (Rung.REBOOT,),
        "old_instance": "i-1",
        **values,
    }
    return Case(node=node, opened_at=at, **fields)


@pytest.mark.parametrize(
    ("instance", "subject", "evidence", "found"),
    [
        ("i-1", UUID, {}, {"i-1", UUID}),
        ("", UUID, {"serial": "1652922000123"}, {UUID, "serial 1652922000123"}),
        ("i-1", "0000:53:00.0", {"uuid": UUID}, {"i-1", UUID}),
        ("i-1", "0000:53:00.0", {"serial": "N/A"}, {"i-1"}),
        ("", "GPU-0", {"serial": 0, "uuid": None}, set()),
        ("", "/fsx", {}, set()),
    ],
)
def test_what_identifies_hardware(instance: str, subject: str, evidence: dict[str, Any], found: set[str]) -> None:
    assert identities(instance, subject, evidence) == found


def finding(fault: str = "gpu.xid.63", subject: str = UUID, **values: Any) -> Finding:
    fields: dict[str, Any] = {"severity": Severity.FATAL, "remedy": Remedy.REBOOT, **values}
    return Finding(fault=fault, subject=subject, **fields)


THREE = [case(2), case(9), case(29)]


@pytest.mark.parametrize(
    ("history", "what", "node", "instance", "rung"),
    [
        (THREE, finding(), "n1", "i-1", Rung.REPLACE),
        (THREE[:2], finding(), "n1", "i-1", Rung.REBOOT),
        ([case(2), case(9), case(31)], finding(), "n1", "i-1", Rung.REBOOT),
        # Another machine under the same name is other hardware.
        (THREE, finding(subject=OTHER), "n1", "i-2", Rung.REBOOT),
        # The same GPU under another name, or in another instance, is not.
        (THREE, finding(), "n2", "i-2", Rung.REPLACE),
        # Any part of the same machine.
        (THREE, finding("pcie.errors", "0000:01:00.0"), "n1", "i-1", Rung.REPLACE),
        ([case(2), case(3), case(4, node="n2")], finding(subject=OTHER), "n2", "i-1", Rung.REPLACE),
        # A serial number says as much.
        (
            [case(n, subject="x", old_instance="", evidence={"serial": "77"}) for n in (2, 3, 4)],
            finding(subject="y", evidence={"serial": "77"}),
            "n1",
            "",
            Rung.REPLACE,
        ),
        # Nothing that nodes share, no operator's wish, nothing that was held back counts.
        ([case(n, family="filesystem") for n in (2, 3, 4)], finding(), "n1", "i-1", Rung.REBOOT),
        ([case(n, family="operator") for n in (2, 3, 4)], finding(), "n1", "i-1", Rung.REBOOT),
        ([case(n, tried=()) for n in (2, 3, 4)], finding(), "n1", "i-1", Rung.REBOOT),
        ([case(n, step=Step.HELD, tried=()) for n in (2, 3, 4)], finding(), "n1", "i-1", Rung.REBOOT),
        (THREE, finding("filesystem.hung", "/fsx"), "n1", "i-1", Rung.REBOOT),
        (THREE, finding("operator.reboot", "n1"), "n1", "i-1", Rung.REBOOT),
        # What is no fault, or needs a human anyway, stays.
        (THREE, finding(severity=Severity.WARN), "n1", "i-1", Rung.OBSERVE),
        (THREE, finding(remedy=Remedy.HUMAN), "n1", "i-1", Rung.HUMAN),
        # Without a launch template nothing can be replaced.
        (THREE, finding(), "b1", "i-1", Rung.HUMAN),
        (THREE, finding(), "nobodys", "i-1", Rung.HUMAN),
        # Nothing is known of the hardware: nothing is held against it.
        ([case(n, old_instance="", subject="x") for n in (2, 3, 4)], finding(subject="x"), "n1", "", Rung.REBOOT),
    ],
)
def test_a_lemon_is_not_tried_again(history: list[Case], what: Finding, node: str, instance: str, rung: Rung) -> None:
    assert opening_rung(what, node, history, RULES, NOW, instance=instance) is rung


def test_lemons_can_be_turned_off() -> None:
    rules = Rules(lemon_cases=0, groups=(GROUP,))
    assert opening_rung(finding(), "n1", THREE, rules, NOW, instance="i-1") is Rung.REBOOT
    with pytest.raises(ValueError, match="lemon_cases must not be negative"):
        Rules(lemon_cases=-1)


def test_a_machine_that_fails_a_third_time_is_replaced_the_fourth() -> None:
    world = World(nodes=4, spares=1)
    machine = world.node("n2")
    machine.instance_id = world.ec2.alive("n2")[0]
    for day in range(4):
        world.run(seconds=5)
        world.node("n2").reports("gpu.xid.48", Severity.FATAL, Remedy.REBOOT)
        world.run(minutes=8)
        world.node("n2").recovers()
        world.run(minutes=4)
        world.clock.advance(2 * DAY)
        world.run(seconds=5)
        first = [known.tried[0] for known in world.cases("n2") if known.tried]
        assert first == [Rung.REBOOT] * min(day + 1, 3) + [Rung.REPLACE] * (day == 3)


def records(*cases: Case, judged: tuple[tuple[float, str, int], ...] = ()) -> list[Record]:
    lines = [(known.opened_at, "case", {"case": case_to_json(known)}) for known in cases]
    lines += [
        (
            at,
            "judged",
            {"job_id": job, "node": node, "restart_count": 0, "cause": "hardware", "text": "", "restarts": True},
        )
        for at, node, job in judged
    ]
    return [
        Record(number=n, at=at, kind=kind, data=data)
        for n, (at, kind, data) in enumerate(sorted(lines, key=lambda x: x[0]), 1)
    ]


def told(found: list[Record], **values: Any) -> list[tuple[str, int]]:
    rows = hardware_history(found, RULES, since=NOW - 30 * DAY, now=NOW, **values)
    return [(row.identity, row.cases) for row in rows]


def test_the_worst_come_first() -> None:
    found = records(
        *THREE,
        case(1, node="n2", old_instance="i-2", subject=OTHER),
        case(3, node="n2", old_instance="i-3", subject="x"),
    )
    assert told(found) == [(UUID, 3), ("i-1", 3), (OTHER, 1), ("i-2", 1), ("i-3", 1)]
    assert told(found, node="n2") == [(OTHER, 1), ("i-2", 1), ("i-3", 1)]
    assert told(found, node="n9") == []


def test_a_row_says_what_was_tried_and_which_jobs_failed() -> None:
    first, second = case(9), case(2, tried=(Rung.REBOOT, Rung.REPLACE), fault="gpu.lost", node="n2")
    times = (first.opened_at - 30, "n1", 17), (second.opened_at + 5, "n2", 18), (NOW - 5 * DAY, "n1", 19)
    rows = hardware_history(records(first, second, judged=times), RULES, since=0.0, now=NOW)
    row = next(row for row in rows if row.identity == "i-1")
    assert row.nodes == ("n1", "n2")
    assert row.tried == {"reboot": 2, "replace": 1}
    assert row.jobs == (17, 18)
    assert row.last_fault == f"gpu.lost on {UUID}"
    assert not row.is_lemon
    assert all(row.is_lemon for row in hardware_history(records(*THREE), RULES, since=0.0, now=NOW))


def test_a_case_counts_against_both_machines_that_failed_in_it() -> None:
    moved = case(3)
    later = Case(**{**{name: getattr(moved, name) for name in Case.__dataclass_fields__}, "old_instance": "i-9"})
    found = [*records(moved), Record(number=2, at=NOW, kind="case", data={"case": case_to_json(later)})]
    assert dict(told(found))["i-1"] == dict(told(found))["i-9"] == 1
    assert dict(told(found))[UUID] == 1, "it is one case all the same"


def test_a_node_of_which_no_hardware_is_known_stands_by_its_name() -> None:
    assert told(records(case(1, old_instance="", subject="x"))) == [("node n1", 1)]


def written(directory: Path, days_ago: float) -> None:
    journal = Journal(directory / "journal.jsonl")
    at = time.time() - days_ago * DAY
    for n in range(3):
        known = case(0, case_id=f"n1.gpu.{n}", step_at=at + n)
        fields = {name: getattr(known, name) for name in Case.__dataclass_fields__}
        journal.append(at + n, "case", {"case": case_to_json(Case(**{**fields, "opened_at": at + n}))})
    journal.close()


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(root, ["history", *arguments])
    return done.exit_code, done.output


def test_the_command(tmp_path: Path) -> None:
    written(tmp_path, 3)
    code, text = run("--state-dir", str(tmp_path))
    assert code == 0
    assert text.splitlines()[0].split() == ["HARDWARE", "NODE", "CASES", "LAST", "LAST", "FAULT", "TRIED", "JOBS"]
    assert f"{UUID} (lemon)  n1    3 " in text
    assert "reboot 3x" in text
    code, text = run("n1", "--json", "--state-dir", str(tmp_path))
    document = json.loads(text)
    assert (code, document["days"], document["node"]) == (0, 30.0, "n1")
    assert [row["cases"] for row in document["hardware"]] == [3, 3]
    assert run("--days", "1", "--state-dir", str(tmp_path)) == (0, "no hardware had a case in the last 1 days\n")


def test_no_journal_is_said(tmp_path: Path) -> None:
    done = CliRunner().invoke(root, ["history", "--state-dir", str(tmp_path)])
    assert "does not exist: name the controller's state directory" in str(done.exception)
