"""What the checks of GPUs share: a finding about one GPU, and that half a picture is never a good one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from nodewatch.errors import SensorError
from nodewatch.model.gpu_samples import Gpu, GpuSample
from nodewatch.model.health import Finding, Remedy, Severity


def each_gpu(sample: GpuSample, judge: Callable[[Gpu], Iterable[Finding]]) -> Iterator[Finding]:
    """What `judge` finds on each GPU that can be described.

    Raises SensorError when nothing was found and a GPU could not be looked at: then the silence proves nothing. Lost GPUs are
    left out, gpu_lost speaks of them.
    """
    is_clean = True
    for gpu in sample.gpus:
        if not gpu.is_lost:
            for finding in judge(gpu):
                is_clean = False
                yield finding
    if is_clean:
        must_be_whole(sample)


def must_be_whole(sample: GpuSample) -> None:
    """Raise SensorError when something of the machine could not be seen."""
    if sample.partial is not None:
        raise SensorError(f"{sample.source} does not show all GPUs: {sample.partial}")
    if sample.unreadable:
        index, why = sample.unreadable[0]
        raise SensorError(f"{sample.source} cannot describe GPU {index} ({why}): look at it with nvidia-smi")


def gpu_finding(
    sample: GpuSample, gpu: Gpu, fault: str, severity: Severity, remedy: Remedy, **evidence: object
) -> Finding:
    """A finding about `gpu`, with what identifies it and the values that were judged."""
    return Finding(
        fault=fault,
        subject=gpu.subject,
        severity=severity,
        remedy=remedy,
        evidence={
            "index": gpu.index,
            "pci_bus_id": gpu.pci_bus_id,
            "serial": gpu.serial,
            "name": gpu.name,
            **evidence,
            "source": sample.source,
        },
    )


def before(sample: GpuSample, gpu: Gpu) -> Gpu | None:
    """The same GPU in the earlier reading; None when there is none."""
    if sample.previous is None or not sample.interval_s:
        return None
    return next((old for old in sample.previous.gpus if old.subject == gpu.subject and not old.is_lost), None)


def growth(now: int | None, then: int | None) -> int | None:
    """By how much a counter grew; None when it was not read twice or began anew (a reset, another driver)."""
    return None if now is None or then is None or now < then else now - then
