"""A GPU dies under a job with a node to spare: the step goes on inside the allocation, and Slurm is asked for nothing."""

from __future__ import annotations

import os
import time

import pytest

from nodewatch.lab import demo, inject, machine
from nodewatch.lab.process import run
from tests.lab.rehearsal import LAYOUT, done_since, eventually, head, job_state, lab, running_past, since

pytestmark = [
    pytest.mark.lab,
    pytest.mark.timeout(600),
    pytest.mark.skipif(os.geteuid() != 0, reason="the lab needs root"),
]


def test_a_step_goes_on_inside_its_allocation(calm: float) -> None:
    name = f"inside-{int(time.time())}"
    argv = ["runuser", "-u", demo.USER, "--", "sbatch", "--parsable", "--auto-resume=3,spares=1", "--no-kill"]
    argv += ["--chdir=/fsx", f"--job-name={name}", "--export=ALL,STEPS=600,CHECKPOINT_EVERY=20,STEP_SECONDS=0.1"]
    asked = run(machine.entering(machine.find(LAYOUT, "head"), [*argv, inject.PRETRAIN]), deadline_s=30)
    job_id = int(asked.out)
    nodes = running_past(name, job_id, 45)
    lab("inject", "gpu-lost", nodes[1])

    starts = lambda: [line for line in demo.progress(LAYOUT, name) if line["event"] == "start"]  # noqa: E731
    eventually(lambda: len(starts()) == 2, "the step starts again", 30)
    assert [(line["world_size"], line["restart"]) for line in starts()] == [(2, 0), (2, 0)]
    assert starts()[1]["step"] >= 40
    told = f"supervise: restart 1: {nodes[1]} is bad; going on on {nodes[0]},{nodes[2]}"
    assert told in (LAYOUT.fsx / f"{name}-{job_id}.out").read_text()

    went_on = lambda: [r.data for r in since(calm) if r.kind == "went_on" and r.data["step"] is not None]  # noqa: E731
    eventually(went_on, "the controller sees that it goes on", 40)
    assert f"goes on without {nodes[1]} inside its allocation" in head("nodewatch", "job", str(job_id))
    eventually(lambda: job_state(job_id) == "COMPLETED", "the job completes", 120)
    assert done_since(calm, "requeue") == []
    assert "Restarts=0" in head("scontrol", "show", "job", str(job_id))
    # Only now is the node empty, and repaired.
    eventually(lambda: done_since(calm, "hold_spare", "return_to_service"), "the node is back", 120)
