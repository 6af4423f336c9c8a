"""GPU memory rows whose remapping waits for a reset, or failed."""

from __future__ import annotations

from collections.abc import Iterator

from nodewatch.checks._api import Phase, check
from nodewatch.errors import SensorError
from nodewatch.model.health import Finding, Remedy, Severity
from nodewatch.model.samples import Gpu, GpuSample


@check(reads=GpuSample, phases=Phase.PROLOG | Phase.EPILOG | Phase.PERIODIC | Phase.DEEP, every_s=30.0)
def gpu_row_remap(sample: GpuSample) -> Iterator[Finding]:
    """`gpu.row_remap_failed` (replace: NVIDIA's mark for a return of the board) and `gpu.row_remap_pending` (reset).

    A pending remap was recorded and takes effect at the next reset: running jobs may finish. A GPU that offers no row
    remapping is left out. Raises SensorError when a GPU cannot be described and no other has a finding.
    """
    clean = True
    for gpu in sample.gpus:
        if gpu.remap_failed:
            clean = False
            yield _finding(gpu, "gpu.row_remap_failed", Severity.FATAL, Remedy.REPLACE)
        elif gpu.remap_pending:
            clean = False
            yield _finding(gpu, "gpu.row_remap_pending", Severity.DEGRADED, Remedy.RESET_GPU)
    if clean and sample.unreadable:
        index, why = sample.unreadable[0]
        raise SensorError(f"NVML cannot describe GPU {index} ({why}): look at it with nvidia-smi")


def _finding(gpu: Gpu, fault: str, severity: Severity, remedy: Remedy) -> Finding:
    return Finding(
        fault=fault,
        subject=gpu.uuid or gpu.pci_bus_id or f"gpu-{gpu.index}",
        severity=severity,
        remedy=remedy,
        evidence={
            "index": gpu.index,
            "pci_bus_id": gpu.pci_bus_id,
            "serial": gpu.serial,
            "remapped_correctable": gpu.remapped_correctable,
            "remapped_uncorrectable": gpu.remapped_uncorrectable,
            "source": "NVML",
        },
    )
