"""gpu_lost: a finding for each lost GPU, unknown for one that cannot be described."""

from __future__ import annotations

import pytest

from nodewatch.checks.gpu_lost import gpu_lost
from nodewatch.errors import SensorError
from nodewatch.model.health import Remedy, Severity
from nodewatch.model.samples import Gpu, GpuSample

WELL = Gpu(index=0, uuid="GPU-a", pci_bus_id="00000000:10:00.0")
LOST = Gpu(index=1, uuid="GPU-b", pci_bus_id="00000000:11:00.0", serial="s1", is_lost=True)
NAMELESS = Gpu(index=2, uuid="", pci_bus_id="", is_lost=True)


@pytest.mark.parametrize(
    ("gpus", "unreadable", "subjects"),
    [
        ((), (), []),
        ((WELL,), (), []),
        ((WELL, LOST), (), ["GPU-b"]),
        ((LOST, NAMELESS), (), ["GPU-b", "gpu-2"]),
        ((LOST,), ((3, "Unknown Error"),), ["GPU-b"]),
    ],
)
def test_lost(gpus: tuple[Gpu, ...], unreadable: tuple[tuple[int, str], ...], subjects: list[str]) -> None:
    findings = list(gpu_lost(GpuSample(gpus=gpus, unreadable=unreadable)))
    assert [finding.subject for finding in findings] == subjects
    for finding in findings:
        assert (finding.fault, finding.severity, finding.remedy) == ("gpu.lost", Severity.FATAL, Remedy.REBOOT)


def test_a_gpu_that_cannot_be_described_is_unknown() -> None:
    with pytest.raises(SensorError, match="GPU 3"):
        list(gpu_lost(GpuSample(gpus=(WELL,), unreadable=((3, "Unknown Error"),))))
