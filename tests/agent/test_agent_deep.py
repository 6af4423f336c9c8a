"""Deep checks in the real agent, with the rehearsal cluster's tools in the place of DCGM and nccl-tests."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.agent.world import ROOT, FakeController, Node, until

TOOLS = ROOT / "nodewatch" / "lab" / "tools"


@pytest.fixture
def state(node: Node, controller: FakeController, tmp_path: Path) -> Path:
    """The file that plays the tools' faults; the agent runs DCGM and NCCL deep checks."""
    file = tmp_path / "tools.json"
    node.environment |= {"PATH": f"{TOOLS}:{os.environ['PATH']}", "NODEWATCH_LAB_TOOLS": str(file)}
    node.settings |= {"controller_url": controller.url, "instance_type": "p5.48xlarge", "gpus": 8}
    node.deep |= {"dcgm": "on", "nccl": "on"}
    return file


def say(state: Path, **what: Any) -> None:
    state.write_text(json.dumps({"seconds": 0.1, **what}))


def answered(controller: FakeController, key: str) -> Mapping[str, Any]:
    found = until(lambda: [e for e in controller.of_kind("validated") if e["key"] == key], what=f"the answer to {key}")
    return dict(found[0])


def last_faults(controller: FakeController) -> set[str]:
    """The faults of the newest message's verdict."""
    return {finding["fault"] for finding in controller.messages[-1]["verdict"]["findings"]}


def request(controller: FakeController, key: str, suite: str = "deep") -> None:
    controller.requests = [{"kind": "validate", "key": key, "suite": suite}]


def test_a_machine_that_is_well_passes_and_one_deep_fault_stands_until_a_deep_check_is_good(
    node: Node, controller: FakeController, state: Path
) -> None:
    say(state)
    node.start()
    request(controller, "first")
    answer = answered(controller, "first")
    statuses = {result["check"]: result["status"] for result in answer["results"]}
    assert (answer["passed"], statuses["dcgm_diag"], statuses["nccl_bandwidth"]) == (True, "ok", "ok")
    assert ["cpu", "cpu is switched off in [deep] of agent.toml"] in answer["not_run"]

    say(state, dcgm={"fail": {"gpu": 3, "test": "memory"}})
    request(controller, "second")
    answer = answered(controller, "second")
    assert answer["passed"] is False
    finding = next(f for r in answer["results"] if r["check"] == "dcgm_diag" for f in r["findings"])
    until(lambda: finding["fault"] in controller.faults(), what="the fault in the verdict")

    say(state)
    request(controller, "third", suite="quick")
    assert "dcgm_diag" not in {result["check"] for result in answered(controller, "third")["results"]}
    assert finding["fault"] in last_faults(controller), "only a deep check clears what a deep check found"

    request(controller, "fourth")
    assert answered(controller, "fourth")["passed"] is True
    until(lambda: finding["fault"] not in last_faults(controller), what="a verdict without the fault")


def test_a_tool_that_cannot_tell_is_no_fault_and_no_pass(node: Node, controller: FakeController, state: Path) -> None:
    say(state, dcgm={"exit": 226}, nccl={"hang": True})
    node.deep |= {"nccl_deadline_s": 2}
    node.start()
    request(controller, "first")
    answer = answered(controller, "first")
    assert answer["passed"] is None
    unknown = {result["check"]: result["error"] for result in answer["results"] if result["status"] == "unknown"}
    assert {"dcgm_coverage", "nccl_bandwidth"} <= set(unknown)
    assert all(unknown.values())
    assert controller.faults() == set() or not any(fault.startswith(("dcgm", "nccl")) for fault in controller.faults())


def test_a_job_that_starts_ends_the_diagnostic_at_once(node: Node, controller: FakeController, state: Path) -> None:
    say(state, seconds=60)
    node.start()
    request(controller, "first")
    log = state.with_suffix(".log")
    until(lambda: log.exists() and "diag" in log.read_text(), what="the diagnostic under way")
    until(
        lambda: any((m.get("validation") or {}).get("tool") == "dcgm" for m in controller.messages), what="its report"
    )
    began = time.monotonic()
    assert node.ask("prolog", id="17")["allow"]
    answer = answered(controller, "first")

    assert (answer["passed"], answer["gave_way_to"]) == (None, "17")
    assert time.monotonic() - began < 30, "it would have taken two minutes"
    assert "stopped" in log.read_text(), "left alone it would have gone on in DCGM's host engine"
