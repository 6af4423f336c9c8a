"""Records as the sentences that `nodewatch explain` prints."""

from __future__ import annotations

from typing import Any

import pytest

from nodewatch.journal.story import sentences
from nodewatch.model import actions as act
from nodewatch.model.records import Record

LAUNCH = act.to_json(act.Launch(key="n2.gpu.100:replace:launch:1", node="n2", launch_template="compute"))
REQUEUE = act.to_json(
    act.Requeue(key="job:17:5:0:requeue", job_id=17, node="n2", cause="hardware", reason="n2 failed: restart 1 of 3")
)
FINDING = {"fault": "gpu.lost", "subject": "GPU-0", "severity": "fatal", "remedy": "replace"}
WARNING = {"fault": "gpu.xid.31", "subject": "GPU-0", "severity": "warn", "remedy": "restart_app"}
CASE = {"node": "n2", "case_id": "n2.gpu.100", "step": "waiting_for_human", "rung": "human", "why": "GPU gone"}


def about(subject: str | int, kind: str, **data: Any) -> list[str]:
    record = Record(number=1, at=7.0, kind=kind, data=data)
    if isinstance(subject, int):
        return [item["text"] for item in sentences([record], job_id=subject)]
    return [item["text"] for item in sentences([record], node=subject)]


@pytest.mark.parametrize(
    ("kind", "data", "text"),
    [
        ("hello", {"node": "n2", "instance_id": "i-1"}, "the agent started on i-1"),
        ("hello", {"node": "n2", "instance_id": ""}, "the agent started on an unnamed machine"),
        ("verdict", {"node": "n2", "verdict": {"state": "healthy"}}, "the agent says healthy"),
        (
            "verdict",
            {"node": "n2", "verdict": {"state": "failed", "findings": [FINDING, WARNING]}},
            "the agent says failed: gpu.lost on GPU-0 (fatal, replace)",
        ),
        ("validated", {"node": "n2", "passed": True}, "the deep checks passed"),
        ("validated", {"node": "n2", "passed": None}, "the deep checks could not tell"),
        (
            "validated",
            {
                "node": "n2",
                "passed": False,
                "results": [
                    {"check": "gpu_count", "status": "findings", "error": None},
                    {"check": "gpu_lost", "status": "unknown", "error": "no NVML"},
                    {"check": "kernel_xid", "status": "ok", "error": None},
                ],
            },
            "the deep checks failed (gpu_count: findings; gpu_lost: no NVML)",
        ),
        ("hook_denied", {"node": "n2", "reason": "gpu.lost"}, "a job was turned away: gpu.lost"),
        ("drained_self", {"node": "n2"}, "the agent drained its own node, the controller was out of reach"),
        ("case", {"case": CASE}, "case n2.gpu.100: waiting for human (human): GPU gone"),
        (
            "done",
            {"key": LAUNCH["key"], "action": LAUNCH, "result": {"instance_id": "i-9", "private_ip": "10.0.0.9"}},
            "done: launch a new instance for n2 from compute: i-9 at 10.0.0.9",
        ),
        ("done", {"key": "k", "action": REQUEUE, "result": {}}, "done: requeue job 17: n2 failed: restart 1 of 3"),
        ("failed", {"key": LAUNCH["key"], "error": "EC2 refused"}, "failed: EC2 refused"),
        ("failed", {"key": "spare:n2:b:0", "error": "refused"}, "failed: refused"),
        (
            "held",
            {"held": [{"subject": "n2", "why": "a"}, {"subject": "n3", "why": "b"}, {"subject": "n2", "why": "c"}]},
            "held back: a; c",
        ),
    ],
)
def test_about_a_node(kind: str, data: dict[str, Any], text: str) -> None:
    assert about("n2", kind, **data) == [text]
    assert about("n", kind, **data) == []


@pytest.mark.parametrize(
    ("kind", "data", "text"),
    [
        (
            "job_started",
            {"job_id": 17, "restart_count": 0, "nodes": "n[1-3]", "auto_resume": "3"},
            "started on n[1-3], --auto-resume=3",
        ),
        (
            "job_started",
            {"job_id": 17, "restart_count": 1, "nodes": "n[1-3]", "auto_resume": None},
            "started again (run 2) on n[1-3], without --auto-resume",
        ),
        ("job_ended", {"job_id": 17, "restart_count": 1, "exit_code": "1:0"}, "run 2 ended with exit code 1:0"),
        (
            "job_witness",
            {"job_id": 17, "lines": ["a", "b"], "last_step": 130, "checkpoint_step": 100},
            "2 lines of its output tell of its end; got to step 130, its newest checkpoint is of step 100",
        ),
        (
            "job_witness",
            {"job_id": 17, "lines": None, "unread": "/o: Permission denied"},
            "its output could not be read: /o: Permission denied",
        ),
        ("judged", {"job_id": 17, "cause": "hardware", "text": "n2 failed"}, "judged hardware: n2 failed"),
        ("done", {"key": "k", "action": REQUEUE, "result": {}}, "done: requeue job 17: n2 failed: restart 1 of 3"),
        ("failed", {"key": REQUEUE["key"], "error": "refused"}, "failed: refused"),
        ("held", {"held": [{"subject": "job 17", "why": "waits"}]}, "held back: waits"),
    ],
)
def test_about_a_job(kind: str, data: dict[str, Any], text: str) -> None:
    assert about(17, kind, **data) == [text]
    assert about(1, kind, **data) == []


def test_what_is_intended_is_not_yet_a_story() -> None:
    assert about("n2", "intended", action=LAUNCH) == []
    assert about("n2", "started", mode="act") == []


def test_a_sentence_is_not_repeated_in_a_row() -> None:
    held = {"held": [{"subject": "n2", "why": "paused"}]}
    records = [Record(number=n, at=float(n), kind="held", data=held) for n in (1, 2, 3)]
    assert sentences(records, node="n2") == [{"at": 1.0, "text": "held back: paused"}]


def test_a_failure_is_told_of_its_own_node_alone() -> None:
    key = "a.b.gpu.100:replace:launch:1"
    assert about("a.b", "failed", key=key, error="x") == ["failed: x"]
    assert about("a", "failed", key=key, error="x") == []


@pytest.mark.parametrize("results", [None, 17, "text", [None], [{}], [{"status": "findings"}]])
def test_what_an_agent_garbled_does_not_hide_the_rest(results: object) -> None:
    (text,) = about("n2", "validated", node="n2", passed="yes", results=results)
    assert text.startswith("the deep checks could not tell")
