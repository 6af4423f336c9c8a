"""gpu_stray_process: programs without a job, seen twice."""

from __future__ import annotations

from typing import Any

import pytest

from nodewatch.checks._api import load_checks
from nodewatch.errors import SensorError
from nodewatch.model.gpu_samples import GpuProcess, GpuSample
from nodewatch.model.health import Remedy, Severity

from .gpus import Outline, gpu, judged, rated

STRAY: Outline = [("gpu.stray_process", Severity.WARN, Remedy.RESTART_APP)]


def program(pid: int = 7, owner: str = "other", name: str = "python3", **values: Any) -> GpuProcess:
    return GpuProcess(**{"pid": pid, "owner": owner, "name": name, "started": 100, **values})


@pytest.mark.parametrize(
    ("then", "now", "expected"),
    [
        ((program(),), (program(),), STRAY),
        ((program(owner="ended_job", job="17"),), (program(owner="ended_job", job="17"),), STRAY),
        # The job ended in between: it may still be ending.
        ((program(owner="job"),), (program(owner="ended_job"),), []),
        ((), (program(),), []),
        (None, (program(),), []),
        ((program(),), (), []),
        ((program(),), None, []),
        # The same number, another process.
        ((program(started=1),), (program(started=2),), []),
        ((program(owner="job"),), (program(owner="job"),), []),
        ((program(owner="agent"),), (program(owner="agent"),), []),
        ((program(owner="unknown"),), (program(owner="unknown"),), []),
        ((program(owner="gone"),), (program(owner="gone"),), []),
        ((program(name="nvidia-cuda-mps-server"),), (program(name="nvidia-cuda-mps-server"),), []),
        ((program(name="nv-hostengine"), program(8)), (program(name="nv-hostengine"), program(8)), STRAY),
    ],
)
def test_owners(then: tuple[GpuProcess, ...] | None, now: tuple[GpuProcess, ...] | None, expected: Outline) -> None:
    assert rated("gpu_stray_process", gpu(processes=then), gpu(processes=now), 60.0) == expected


def test_the_first_reading_says_nothing_yet() -> None:
    assert judged("gpu_stray_process", gpu(processes=(program(),))) == []


def test_evidence_and_another_list_of_the_allowed() -> None:
    check = load_checks()["gpu_stray_process"]
    one = gpu(processes=(program(uid=1000, age_s=90.5, used_mib=512),))
    sample = GpuSample(gpus=(one,), previous=GpuSample(gpus=(one,)), interval_s=60.0)
    (finding,) = check.run(sample)
    assert finding.subject == "GPU-0"
    assert finding.evidence["processes"] == [
        {"pid": 7, "name": "python3", "uid": 1000, "age_s": 90.5, "job": None, "used_mib": 512}
    ]
    assert check.thresholds is not None
    assert check.run(sample, check.thresholds(allowed=("python3",))) == ()


def test_what_cannot_be_seen_is_unknown() -> None:
    with pytest.raises(SensorError):
        judged("gpu_stray_process", unreadable=((0, "Unknown Error"),))
