"""Programs on a GPU that no running job owns: left behind by one that ended, or started past Slurm.

The next job finds the GPU's memory taken, and whoever measures the GPU measures somebody else's work. Ending the program is the
cure, and never a matter of hardware: a warning. It must have been there in an earlier reading too, a minute or more ago,
since a job's last programs take a moment to end.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nodewatch.checks._api import Phase, check
from nodewatch.checks._gpu import before, each_gpu, gpu_finding
from nodewatch.model.gpu_samples import Gpu, GpuProcess, GpuSample
from nodewatch.model.health import Finding, Remedy, Severity

_SHOWN = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuStrayProcessThresholds:
    """Programs that may be on a GPU without a job, by name."""

    allowed: tuple[str, ...] = (
        "nvidia-cuda-mps-server",
        "nvidia-cuda-mps-control",
        "nvidia-persistenced",
        "nvidia-imex",
        "nv-fabricmanager",
        "nv-hostengine",
        "nvvs",
        "dcgm-exporter",
        "Xorg",
        "Xwayland",
        "gnome-shell",
    )
    """MPS's and the driver's own services (NVIDIA's names of them), DCGM with its diagnostic, and a display."""


@check(
    reads=GpuSample,
    phases=Phase.PROLOG | Phase.EPILOG | Phase.PERIODIC | Phase.DEEP,
    every_s=30.0,
    thresholds=GpuStrayProcessThresholds,
)
def gpu_stray_process(sample: GpuSample, thresholds: GpuStrayProcessThresholds) -> Iterator[Finding]:
    """`gpu.stray_process`, a warning on each GPU that has one. Nodewatch's own tests and the allowed names are left out, and so
    is a program whose owner cannot be told (an agent in a container)."""

    def judge(gpu: Gpu) -> Iterator[Finding]:
        old = before(sample, gpu)
        if old is None:
            return
        then = {(process.pid, process.started) for process in _strays(old, thresholds)}
        strays = [process for process in _strays(gpu, thresholds) if (process.pid, process.started) in then]
        if strays:
            yield gpu_finding(
                sample,
                gpu,
                "gpu.stray_process",
                Severity.WARN,
                Remedy.RESTART_APP,
                count=len(strays),
                processes=[_shown(process) for process in strays[:_SHOWN]],
            )

    yield from each_gpu(sample, judge)


def _strays(gpu: Gpu, thresholds: GpuStrayProcessThresholds) -> list[GpuProcess]:
    return [
        process
        for process in gpu.processes or ()
        if process.owner in ("other", "ended_job") and process.name not in thresholds.allowed
    ]


def _shown(process: GpuProcess) -> dict[str, object]:
    return {
        "pid": process.pid,
        "name": process.name,
        "uid": process.uid,
        "age_s": process.age_s,
        "job": process.job,
        "used_mib": process.used_mib,
    }
