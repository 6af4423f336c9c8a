"""GPUs that the driver counts and cannot reach any more."""

from __future__ import annotations

from collections.abc import Iterator

from nodewatch.checks._api import Phase, check
from nodewatch.checks._gpu import gpu_finding, must_be_whole
from nodewatch.model.health import Finding, Remedy, Severity
from nodewatch.model.samples import GpuSample


@check(reads=GpuSample, phases=Phase.PROLOG | Phase.EPILOG | Phase.PERIODIC | Phase.DEEP, every_s=5.0)
def gpu_lost(sample: GpuSample) -> Iterator[Finding]:
    """`gpu.lost` for each GPU that NVML calls lost, or whose handle nvidia-smi cannot determine.

    It needs a reboot (NVIDIA's action for Xid 79, the same fault). Raises SensorError when no GPU is lost and one cannot be
    described: whether that one is well cannot be told.
    """
    lost = [gpu for gpu in sample.gpus if gpu.is_lost]
    for gpu in lost:
        said = gpu.lost_because or "GPU_IS_LOST"
        yield gpu_finding(sample, gpu, "gpu.lost", Severity.FATAL, Remedy.REBOOT, nvml=said)
    if not lost:
        must_be_whole(sample)
