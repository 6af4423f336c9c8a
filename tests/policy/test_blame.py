"""The labelled set: what the real parts deliver of each failure goes through them all, and the right one is blamed."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from nodewatch.model.cluster import AgentView, SlurmJob, SlurmNode, Snapshot
from nodewatch.model.health import Finding, NodeState, Remedy, Severity, StandingFinding, Verdict
from nodewatch.model.ledger import Case, Cause, Ledger, Rung, Step
from nodewatch.model.plan import Judgement
from nodewatch.model.records import Record
from nodewatch.policy.blame import cause_of, code_and_signal
from nodewatch.policy.fold import fold
from nodewatch.policy.job_scene import Suspects
from nodewatch.policy.requeue import decide
from nodewatch.policy.rules import Rules
from nodewatch.sensors.job_output import output, records

START = 1_700_000_000.0
END = START + 3600.0
NODES = ("n1", "n2")
RULES = Rules(mode="act")
SET: Mapping[str, Mapping[str, Any]] = tomllib.loads(Path(__file__).with_name("blame_cases.toml").read_text())["cases"]


def told(directory: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """What the agent's reader finds of the run."""
    error_file = directory / "slurm-17.out"
    error_file.write_text(given.get("stderr", ""))
    if "failures" in given:
        lines = [{**line, "t": END + line["t"], "event": "failed", "restart": 0} for line in given["failures"]]
        (directory / "failures.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    steps = given.get("steps")
    if steps:
        progress = [
            {
                "t": START + 5,
                "event": "start",
                "restart": 0,
                "world_size": 16,
                "resumed_from": None,
                "step": steps["first"],
            },
            {"t": END - 60, "event": "saved", "restart": 0, "step": steps["saved"], "checkpoint": "c", "seconds": 1.0},
            {"t": END - 1, "event": "step", "restart": 0, "step": steps["last"], "loss": 1.0},
        ]
        (directory / "progress.jsonl").write_text("".join(json.dumps(line) + "\n" for line in progress))
    if "unread" in given:
        return {"lines": None, "unread": given["unread"]}
    found = output(str(error_file), since=0, restart=0)
    return found | records(str(directory), restart=0, since=START)


def remembered(directory: Path, given: Mapping[str, Any]) -> Ledger:
    """The ledger after the records that hooks and agents leave of the run."""
    run = {"job_id": 17, "restart_count": 0}
    start = {**run, "node_names": list(NODES), "user": "ada", "partition": "train", "auto_resume": "3"}
    ledger = fold(Ledger(), [Record(number=1, at=START, kind="job_started", data=start)])
    job = dataclasses.replace(
        ledger.jobs[17], failed_step=given.get("before"), unknown_requeues=int(given.get("retried", False))
    )
    ledger = dataclasses.replace(ledger, jobs={17: job})
    ended = {**run, "exit_code": given.get("exit", "1:0")}
    return fold(
        ledger,
        [
            Record(number=2, at=END, kind="job_ended", data=ended),
            Record(number=3, at=END + 1, kind="job_witness", data={**told(directory, given), **run}),
        ],
    )


def seen(given: Mapping[str, Any], now: float) -> Snapshot:
    def view(name: str) -> AgentView:
        finding = Finding(fault="gpu.memory_held", subject="GPU-1", severity=Severity.WARN, remedy=Remedy.NONE)
        held = StandingFinding(finding=finding, first_at=END, last_at=END)
        verdict = Verdict(
            state=NodeState.HEALTHY, since=START, findings=(held,) if given.get("held_gpu") == name else ()
        )
        heard = END - 300 if name in given.get("silent", ()) else now
        return AgentView(node=name, heard_at=heard, boot_id="b", instance_id=f"i-{name}", verdict=verdict)

    down = given.get("down", ())
    nodes = {
        name: SlurmNode(name=name, address="", states=frozenset({"DOWN" if name in down else "IDLE"})) for name in NODES
    }
    states = frozenset(given.get("states", ["FAILED"]))
    job = SlurmJob(job_id=17, states=states, nodes=NODES, partition="train", started_at=START, ended_at=END)
    return Snapshot(taken_at=now, nodes=nodes, jobs={17: job}, agents={name: view(name) for name in NODES})


def case_of(given: Mapping[str, Any]) -> list[Case]:
    fault = given.get("fault")
    if fault is None:
        return []
    at = END + fault["at"]
    return [
        Case(
            case_id=f"{fault['node']}.x.1",
            node=fault["node"],
            family=fault["fault"].partition(".")[0],
            fault=fault["fault"],
            subject="GPU-1",
            severity=Severity.FATAL,
            rung=Rung.REPLACE,
            step=Step.DRAINING,
            opened_at=max(at, END - 60),
            step_at=at,
            fault_at=at,
        )
    ]


def judged(directory: Path, given: Mapping[str, Any]) -> Judgement:
    now = END + RULES.attribution_wait_s
    ledger = remembered(directory, given)
    decision = decide(ledger.jobs[17], Suspects(case_of(given)), seen(given, now), ledger, RULES, now)
    assert decision.judgement is not None, decision
    return decision.judgement


@pytest.mark.parametrize("given", SET.values(), ids=list(SET))
def test_the_right_one_is_blamed(tmp_path: Path, given: Mapping[str, Any]) -> None:
    judgement = judged(tmp_path, given)
    assert (judgement.cause.value, judgement.restarts) == (given["cause"], given["restarts"]), judgement.text
    assert given.get("words", "") in judgement.text
    assert judgement.node == given.get("node", judgement.node)
    assert len(judgement.text.splitlines()) == 1


def test_the_set_is_large_and_mixed() -> None:
    counts = Counter(given["cause"] for given in SET.values())
    assert sum(counts.values()) >= 40
    assert all(counts[cause.value] >= 2 for cause in Cause), counts


def test_the_bar(tmp_path: Path) -> None:
    """No program fault is retried as hardware, and no hardware fault is blamed on the user."""
    for name, given in SET.items():
        directory = tmp_path / name
        directory.mkdir()
        judgement = judged(directory, given)
        if given["cause"] == "program":
            assert not judgement.restarts, name
        if given["cause"] in ("hardware", "infrastructure"):
            assert judgement.cause is not Cause.PROGRAM, name


def test_nothing_is_judged_before_the_nodes_had_time_to_report(tmp_path: Path) -> None:
    given = SET["a_value_error"]
    ledger = remembered(tmp_path, given)
    for seconds, is_judged in ((0.0, False), (14.9, False), (15.0, True)):
        now = END + seconds
        decision = decide(ledger.jobs[17], Suspects([]), seen(given, now), ledger, RULES, now)
        assert (decision.judgement is not None, decision.held is not None) == (is_judged, not is_judged)


@pytest.mark.parametrize(
    ("text", "both"),
    [
        ("1:0", (1, 0)),
        ("0:9", (0, 9)),
        ("137:0", (137, 9)),
        ("0:125", (0, 125)),
        ("", (0, 0)),
        ("x", (0, 0)),
        ("255:0", (255, 0)),
    ],
)
def test_exit_codes(text: str, both: tuple[int, int]) -> None:
    assert code_and_signal(text) == both


def test_what_is_of_the_machine_and_what_feeds_it() -> None:
    assert {
        fault: cause_of(fault) for fault in ("gpu.lost", "host.machine_check", "node.lost", "filesystem.inodes")
    } == {
        "gpu.lost": Cause.HARDWARE,
        "host.machine_check": Cause.HARDWARE,
        "node.lost": Cause.INFRASTRUCTURE,
        "filesystem.inodes": Cause.INFRASTRUCTURE,
    }
