"""gpu_count: too few is a fault, too many is none, and without an expectation nothing is proved."""

from __future__ import annotations

import pytest

from nodewatch.checks.gpu_count import gpu_count
from nodewatch.errors import SensorError
from nodewatch.model.health import Remedy, Severity
from nodewatch.model.samples import Gpu, GpuSample


def sample(seen: int, expected: int | None, *, unreadable: int = 0, lost: int = 0) -> GpuSample:
    gpus = tuple(Gpu(index=n, uuid=f"GPU-{n}", pci_bus_id=f"00000000:1{n}:00.0", is_lost=n < lost) for n in range(seen))
    return GpuSample(gpus=gpus, expected=expected, unreadable=tuple((seen + n, "why") for n in range(unreadable)))


@pytest.mark.parametrize(
    ("given", "is_missing"),
    [
        (sample(8, 8), False),
        (sample(9, 8), False),
        (sample(7, 8), True),
        (sample(0, 8), True),
        (sample(0, 0), False),
        (sample(7, 8, unreadable=1), False),
        (sample(8, 8, lost=1), False),
    ],
)
def test_count(given: GpuSample, is_missing: bool) -> None:
    findings = list(gpu_count(given))
    assert bool(findings) is is_missing
    for finding in findings:
        assert (finding.fault, finding.subject) == ("gpu.missing", "gpus")
        assert (finding.severity, finding.remedy) == (Severity.FATAL, Remedy.REBOOT)
        assert finding.evidence["expected"] == 8
        assert finding.evidence["seen"] == len(given.gpus)


def test_without_an_expectation_it_cannot_tell() -> None:
    with pytest.raises(SensorError, match=r"set gpus or instance_type in agent\.toml"):
        list(gpu_count(sample(8, None)))
