"""gpu_row_remap: pending waits for a reset, failed asks for another machine."""

from __future__ import annotations

import pytest

from nodewatch.checks.gpu_row_remap import GpuRowRemapThresholds, gpu_row_remap
from nodewatch.errors import SensorError
from nodewatch.model.health import Remedy, Severity
from nodewatch.model.samples import Gpu, GpuSample

PENDING = ("gpu.row_remap_pending", Severity.DEGRADED, Remedy.RESET_GPU)
FAILED = ("gpu.row_remap_failed", Severity.FATAL, Remedy.REPLACE)


@pytest.mark.parametrize(
    ("pending", "failed", "expected"),
    [
        (None, None, []),
        (False, False, []),
        (True, False, [PENDING]),
        (False, True, [FAILED]),
        (True, True, [FAILED]),
    ],
)
def test_remap(pending: bool | None, failed: bool | None, expected: list[object]) -> None:
    gpu = Gpu(
        index=0, uuid="GPU-a", pci_bus_id="b", remap_pending=pending, remap_failed=failed, remapped_uncorrectable=3
    )
    findings = list(gpu_row_remap(GpuSample(gpus=(gpu,)), GpuRowRemapThresholds()))
    assert [(f.fault, f.severity, f.remedy) for f in findings] == expected
    assert all(f.subject == "GPU-a" and f.evidence["remapped_uncorrectable"] == 3 for f in findings)


def test_a_gpu_that_cannot_be_described_is_unknown() -> None:
    with pytest.raises(SensorError):
        list(gpu_row_remap(GpuSample(gpus=(), unreadable=((0, "Unknown Error"),)), GpuRowRemapThresholds()))


@pytest.mark.parametrize(
    ("uncorrectable", "banks", "expected"),
    [
        (3, (638, 2, 0, 0, 0), []),
        (3, (638, 1, 0, 0, 1), [("gpu.row_remap_no_spare", Severity.WARN, Remedy.HUMAN)]),
        (512, (638, 2, 0, 0, 0), [("gpu.row_remap_exhausted", Severity.FATAL, Remedy.REPLACE)]),
        (511, None, []),
    ],
)
def test_spares(uncorrectable: int, banks: tuple[int, int, int, int, int] | None, expected: list[object]) -> None:
    gpu = Gpu(index=0, uuid="GPU-a", pci_bus_id="b", remapped_uncorrectable=uncorrectable, remap_banks=banks)
    findings = list(gpu_row_remap(GpuSample(gpus=(gpu,)), GpuRowRemapThresholds()))
    assert [(f.fault, f.severity, f.remedy) for f in findings] == expected
