"""The rehearsal cluster as tests use it: its commands, what the controller answers and writes down, and waits."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from nodewatch.lab import demo
from nodewatch.lab.layout import layout_from
from nodewatch.model.records import Record

LAYOUT = layout_from(None)
UP_DEADLINE_S = 900


def lab(*words: str, deadline_s: float = 60, text: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "nodewatch.lab", *words],
        input=text, capture_output=True, text=True, timeout=deadline_s, check=False,
    )  # fmt: skip


def on(where: str, *argv: str, deadline_s: float = 60, text: str | None = None) -> str:
    """What a command says in a machine; it must succeed."""
    done = lab("exec", where, "--", *argv, deadline_s=deadline_s, text=text)
    assert done.returncode == 0, f"{argv} on {where}: {done.stdout} {done.stderr}"
    return done.stdout.strip()


def head(*argv: str) -> str:
    return on("head", *argv)


def status_if_any() -> dict[str, Any] | None:
    """What `nodewatch status` says; None while no controller answers, as when one has only just been started."""
    done = lab("exec", "head", "--", "nodewatch", "status", "--json")
    if done.returncode not in (0, 1):
        assert "no controller answers" in done.stderr, done.stderr
        return None
    answer = json.loads(done.stdout)
    assert isinstance(answer, dict)
    return answer


def status() -> dict[str, Any]:
    answer = status_if_any()
    assert answer is not None, "no controller answers"
    return answer


def explain(subject: str) -> str:
    return head("nodewatch", "explain", subject)


def until(what: Callable[[], Any], why: str, deadline_s: float = 60.0, *, told: Callable[[], str] = str) -> Any:
    """Wait for it; `told` says more where it does not come."""
    end = time.monotonic() + deadline_s
    while not (value := what()):
        assert time.monotonic() < end, f"{why}: not within {deadline_s:.0f} s\n{told()}"
        time.sleep(0.2)
    return value


def eventually(what: Callable[[], Any], why: str, deadline_s: float = 60.0) -> Any:
    """The same where there is a controller that can say how things stand."""
    return until(what, why, deadline_s, told=lambda: json.dumps(status_if_any(), indent=1))


def since(at: float) -> list[Record]:
    return [record for record in demo.journal(LAYOUT) if record.at >= at]


def done_since(at: float, *words: str) -> list[dict[str, Any]]:
    return [
        dict(record.data["action"])
        for record in since(at)
        if record.kind == "done" and (not words or record.data["action"]["action"] in words)
    ]


def job_state(job_id: int) -> str:
    return head("squeue", "-h", "--states=all", "-j", str(job_id), "-o", "%T")


def all_well() -> bool:
    now = status_if_any()
    if now is None or "standing_by" in now:
        return False
    calm = all(node["health"] == "healthy" and not node["cases"] for node in now["nodes"])
    return calm and sum(node["is_spare"] for node in now["nodes"]) == 1


def in_service() -> list[str]:
    """The nodes that take jobs: which of the four is the spare depends on who was ready first."""
    return [node["node"] for node in status()["nodes"] if node["slurm"] == ["IDLE"]]


def restarted(job_id: int, at: float) -> Record | None:
    starts = [
        r for r in since(at) if r.kind == "job_started" and r.data["job_id"] == job_id and r.data["restart_count"]
    ]
    return starts[-1] if starts else None


def submit(name: str, **changes: Any) -> int:
    script = demo.Script(**{"steps": 150, "checkpoint_every": 20, "step_seconds": 0.1, **changes})
    return demo.submit(LAYOUT, name, script, step_seconds=script.step_seconds)


def running_past(name: str, job_id: int, step: int) -> tuple[str, ...]:
    eventually(
        lambda: any(line["event"] == "step" and line["step"] >= step for line in demo.progress(LAYOUT, name)),
        f"job {job_id} reaches step {step}",
    )
    started = [r for r in demo.journal(LAYOUT) if r.kind == "job_started" and r.data["job_id"] == job_id]
    return tuple(started[-1].data["node_names"])
