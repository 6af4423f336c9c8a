"""Memory of a GPU that is in use while the driver lists no program and Slurm has no job on the node.

A program that died inside the driver leaves its memory behind, and the next job runs out of it. Nothing that could be ended
holds it, so a reset is the smallest cure. It must have been so in an earlier reading too, a minute or more ago: the driver
takes seconds to clear a large GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nodewatch.checks._api import Phase, check
from nodewatch.checks._gpu import before, each_gpu, gpu_finding
from nodewatch.model.gpu_samples import Gpu, GpuSample
from nodewatch.model.health import Finding, Remedy, Severity


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuMemoryHeldThresholds:
    """MiB in use on a GPU that nobody uses. The driver's own reserve does not count."""

    warn_mib: int = 128
    """Ours: facebookresearch/gcm fails its `gpu_mem_usage` above 15, the smallest CUDA context takes some hundreds."""
    held_mib: int = 1024
    """Ours: more than one per cent of the largest GPUs, which is what programs leave free that take `all` of the memory."""


@check(
    reads=GpuSample,
    phases=Phase.PROLOG | Phase.EPILOG | Phase.PERIODIC | Phase.DEEP,
    every_s=30.0,
    thresholds=GpuMemoryHeldThresholds,
)
def gpu_memory_held(sample: GpuSample, thresholds: GpuMemoryHeldThresholds) -> Iterator[Finding]:
    """`gpu.memory_held`: degraded (reset_gpu), a warning below `held_mib`.

    Not judged: a GPU that is divided (MIG keeps memory for its instances), one with a program on it, whoever's it is, and a
    node that has a job or where that cannot be seen.
    """

    def judge(gpu: Gpu) -> Iterator[Finding]:
        old = before(sample, gpu)
        if old is None:
            return
        used = min(_held(gpu), _held(old))
        if used >= thresholds.warn_mib:
            is_much = used >= thresholds.held_mib
            gone = [process.pid for process in gpu.processes or ()]
            yield gpu_finding(
                sample,
                gpu,
                "gpu.memory_held",
                Severity.DEGRADED if is_much else Severity.WARN,
                Remedy.RESET_GPU,
                used_mib=gpu.memory_used_mib,
                total_mib=gpu.memory_total_mib,
                limit_mib=thresholds.held_mib if is_much else thresholds.warn_mib,
                ended_pids=gone,
            )

    yield from each_gpu(sample, judge)


def _held(gpu: Gpu) -> int:
    """MiB that are in use by nobody; 0 where that cannot be told."""
    if gpu.mig_enabled or gpu.mig_pending or gpu.processes is None or gpu.job_on_node is not False:
        return 0
    if any(process.owner != "gone" for process in gpu.processes):
        return 0
    return gpu.memory_used_mib or 0
