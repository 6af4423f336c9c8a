"""gpu_memory_held: memory in use without a program and without a job, seen twice."""

from __future__ import annotations

from typing import Any

import pytest

from nodewatch.errors import SensorError
from nodewatch.model.gpu_samples import Gpu, GpuProcess
from nodewatch.model.health import Remedy, Severity

from .gpus import Outline, gpu, judged, rated

HELD: Outline = [("gpu.memory_held", Severity.DEGRADED, Remedy.RESET_GPU)]
SOME: Outline = [("gpu.memory_held", Severity.WARN, Remedy.RESET_GPU)]
GONE = GpuProcess(pid=7, owner="gone")


def idle(used_mib: int | None, **values: Any) -> Gpu:
    return gpu(**{"processes": (), "memory_used_mib": used_mib, "job_on_node": False, **values})


@pytest.mark.parametrize(
    ("then", "now", "expected"),
    [
        (idle(4), idle(4), []),
        (idle(None), idle(None), []),
        (idle(127), idle(127), []),
        (idle(128), idle(128), SOME),
        (idle(1023), idle(1023), SOME),
        (idle(1024), idle(1024), HELD),
        # On the way down, or only just seen.
        (idle(70000), idle(100), []),
        (idle(70000), idle(600), SOME),
        (idle(0), idle(70000), []),
        (idle(2000, processes=(GONE,)), idle(2000, processes=(GONE,)), HELD),
        (idle(2000, processes=(GpuProcess(pid=7, owner="other"),)), idle(2000), []),
        (idle(2000), idle(2000, processes=(GpuProcess(pid=7, owner="unknown"),)), []),
        (idle(2000), idle(2000, processes=None), []),
        (idle(2000), idle(2000, job_on_node=True), []),
        (idle(2000, job_on_node=True), idle(2000), []),
        (idle(2000, job_on_node=None), idle(2000, job_on_node=None), []),
        (idle(2000, mig_enabled=True), idle(2000, mig_enabled=True), []),
    ],
)
def test_memory(then: Gpu, now: Gpu, expected: Outline) -> None:
    assert rated("gpu_memory_held", then, now, 60.0) == expected


def test_the_first_reading_says_nothing_yet() -> None:
    assert judged("gpu_memory_held", idle(2000)) == []


def test_what_cannot_be_seen_is_unknown() -> None:
    with pytest.raises(SensorError):
        judged("gpu_memory_held", partial="half a picture")
