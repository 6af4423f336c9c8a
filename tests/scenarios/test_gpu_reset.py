"""The rung between draining and rebooting: the agent resets the GPUs of an empty node."""

from __future__ import annotations

import pytest

from nodewatch.model.health import Remedy, Severity
from nodewatch.model.ledger import Step
from nodewatch.policy.rules import Rules
from nodewatch.testing import World


def with_a_fault_that_a_reset_cures(**rules: object) -> World:
    defaults: dict[str, object] = {"mode": "act", "max_out_share": 1.0, "sweep_every_s": 0.0}
    world = World(nodes=3, spares=0, rules=Rules(**{**defaults, **rules}))  # type: ignore[arg-type]
    world.run(seconds=3)
    world.node("n2").reports("gpu.row_remap_pending", Severity.DEGRADED, Remedy.RESET_GPU)
    return world


def test_the_smallest_cure_is_a_reset_and_the_node_is_tested_after_it() -> None:
    world = with_a_fault_that_a_reset_cures()
    world.run(minutes=3)
    assert world.story() == ["drain", "reset_gpu", "return_to_service"]
    assert world.cases("n2")[-1].step is Step.CLOSED
    assert any(r.kind == "validated" and r.data["passed"] for r in world.journal.records)


def test_no_gpu_is_reset_under_a_job() -> None:
    world = World(nodes=3, spares=0, rules=Rules(mode="act", max_out_share=1.0, sweep_every_s=0.0))
    job = world.submit(nodes=3, auto_resume=None)
    world.run(seconds=3)
    world.node("n2").reports("gpu.row_remap_pending", Severity.DEGRADED, Remedy.RESET_GPU)
    world.run(minutes=10)
    assert world.story() == ["drain"]
    world.slurm.end_job(job, "COMPLETED", 0)
    world.run(minutes=3)
    assert world.story() == ["drain", "reset_gpu", "return_to_service"]


@pytest.mark.parametrize(
    ("works", "words"), [(False, "the driver refused"), (None, "no answer to the GPU reset within 600 s")]
)
def test_a_reset_that_fails_goes_on_to_the_reboot(works: bool | None, words: str) -> None:
    world = with_a_fault_that_a_reset_cures()
    world.reset_works = works
    world.run(minutes=20)
    assert world.story() == ["drain", "reset_gpu", "reboot", "return_to_service"]
    assert any(words in str(r.data["case"]["why"]) for r in world.journal.records if r.kind == "case")


def test_the_fault_again_after_a_reset_is_a_reboot() -> None:
    world = with_a_fault_that_a_reset_cures()
    world.run(minutes=3)
    world.node("n2").reports("gpu.row_remap_pending", Severity.DEGRADED, Remedy.RESET_GPU)
    world.run(minutes=5)
    assert world.story("reset_gpu", "reboot") == ["reset_gpu", "reboot"]


def test_a_controller_killed_while_it_waits_asks_once() -> None:
    world = with_a_fault_that_a_reset_cures()
    world.reset_works = None
    world.run(seconds=10)
    world.restart_controller()
    world.reset_works = True
    world.run(minutes=3)
    assert world.story() == ["drain", "reset_gpu", "return_to_service"]
