"""stress_cpu: a wrong result is fatal, whatever it was; a run without one is no finding."""

from __future__ import annotations

import pytest

from nodewatch.checks.stress_cpu import stress_cpu
from nodewatch.model.health import Remedy, Severity
from nodewatch.model.stress_samples import CpuStressSample, StressRun

LINE = "stress-ng: fail:  [7] cpu: int64 error detected, failed int64 math operations"


@pytest.mark.parametrize("count", [1, 2, 20])
def test_wrong_results(count: int) -> None:
    (finding,) = stress_cpu(CpuStressSample(run=StressRun(workers=192, seconds=30.0, wrong=(LINE,) * count)))
    assert (finding.fault, finding.subject) == ("host.cpu_wrong_result", "cpu")
    assert (finding.severity, finding.remedy) == (Severity.FATAL, Remedy.REPLACE)
    assert finding.evidence["count"] == count and finding.evidence["said"] == [LINE] * min(count, 5)


def test_right_results() -> None:
    assert list(stress_cpu(CpuStressSample(run=StressRun(workers=192, seconds=30.0, said="run completed")))) == []
