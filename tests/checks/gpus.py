"""GPUs and samples for the tests of the checks that read them."""

from __future__ import annotations

from typing import Any

from nodewatch.checks._api import load_checks
from nodewatch.model.gpu_samples import Gpu, GpuSample
from nodewatch.model.health import Remedy, Severity

Outline = list[tuple[str, Severity, Remedy]]


def gpu(index: int = 0, **values: Any) -> Gpu:
    return Gpu(index=index, uuid=f"GPU-{index}", pci_bus_id=f"00000000:1{index}:00.0", **values)


def judged(name: str, *gpus: Gpu, **values: Any) -> Outline:
    """What the check `name` finds in a sample of `gpus`: fault, severity, remedy."""
    findings = load_checks()[name].run(GpuSample(gpus=gpus, **values))
    assert all(finding.evidence["source"] == "NVML" for finding in findings)
    return [(finding.fault, finding.severity, finding.remedy) for finding in findings]


def rated(name: str, then: Gpu, now: Gpu, interval_s: float, **values: Any) -> Outline:
    """What the check finds in `now`, `interval_s` after `then`."""
    return judged(name, now, previous=GpuSample(gpus=(then,)), interval_s=interval_s, **values)
