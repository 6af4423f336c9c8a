"""stress_memory: one changed bit is fatal; a run without one is no finding."""

from __future__ import annotations

import pytest

from nodewatch.checks.stress_memory import stress_memory
from nodewatch.model.health import Remedy, Severity
from nodewatch.model.stress_samples import MemoryStressSample, StressRun

LINE = "stress-ng: fail:  [7] vm: detected 1 bit errors while stressing memory"


@pytest.mark.parametrize("count", [1, 20])
def test_wrong_bytes(count: int) -> None:
    run = StressRun(workers=192, seconds=60.0, wrong=(LINE,) * count)
    (finding,) = stress_memory(MemoryStressSample(run=run, size=1 << 40))
    assert (finding.fault, finding.subject) == ("host.memory_wrong_bytes", "memory")
    assert (finding.severity, finding.remedy) == (Severity.FATAL, Remedy.REPLACE)
    assert (finding.evidence["count"], finding.evidence["bytes"]) == (count, 1 << 40)


def test_right_bytes() -> None:
    assert list(stress_memory(MemoryStressSample(run=StressRun(workers=192, seconds=60.0), size=1 << 40))) == []
