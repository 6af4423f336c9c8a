"""GPUs that the driver counts and cannot reach any more."""

from __future__ import annotations

from collections.abc import Iterator

from nodewatch.checks._api import Phase, check
from nodewatch.errors import SensorError
from nodewatch.model.health import Finding, Remedy, Severity
from nodewatch.model.samples import GpuSample


@check(reads=GpuSample, phases=Phase.PROLOG | Phase.EPILOG | Phase.PERIODIC | Phase.DEEP, every_s=5.0)
def gpu_lost(sample: GpuSample) -> Iterator[Finding]:
    """`gpu.lost` for each GPU that NVML calls lost: it needs a reboot (NVIDIA's action for Xid 79, the same fault).

    Raises SensorError when no GPU is lost and one cannot be described: whether that one is well cannot be told.
    """
    lost = [gpu for gpu in sample.gpus if gpu.is_lost]
    for gpu in lost:
        yield Finding(
            fault="gpu.lost",
            subject=gpu.uuid or gpu.pci_bus_id or f"gpu-{gpu.index}",
            severity=Severity.FATAL,
            remedy=Remedy.REBOOT,
            evidence={
                "index": gpu.index,
                "pci_bus_id": gpu.pci_bus_id,
                "serial": gpu.serial,
                "nvml": "GPU_IS_LOST",
                "source": "NVML",
            },
        )
    if sample.unreadable and not lost:
        index, why = sample.unreadable[0]
        raise SensorError(f"NVML cannot describe GPU {index} ({why}): look at it with nvidia-smi")
