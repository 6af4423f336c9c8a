"""GPUs whose PCIe link is narrower or slower than it can be."""

from __future__ import annotations

from collections.abc import Iterator

from nodewatch.checks._api import Phase, check
from nodewatch.checks._gpu import each_gpu, gpu_finding
from nodewatch.model.health import Finding, Remedy, Severity
from nodewatch.model.samples import Gpu, GpuSample


@check(reads=GpuSample, phases=Phase.PROLOG | Phase.EPILOG | Phase.PERIODIC | Phase.DEEP, every_s=30.0)
def gpu_pcie(sample: GpuSample) -> Iterator[Finding]:
    """`gpu.pcie_width` and `gpu.pcie_generation`: degraded for a GPU that is behind its neighbours, else a warning.

    A width that all GPUs of a machine share is how the machine was built (DCGM calls the width configuration), unless they are
    of the kind with NVLink, whose machines give each all its lanes. The generation falls when a GPU is idle and is judged at
    work alone (P0, not idle, in use). A reboot trains the link anew.
    """
    widths = [gpu.pcie_width for gpu in sample.gpus if gpu.pcie_width]
    generations = [gpu.pcie_generation for gpu in sample.gpus if gpu.pcie_generation and _works(gpu)]
    has_all_lanes = sample.nvlinks_expected is not None

    def judge(gpu: Gpu) -> Iterator[Finding]:
        evidence = {
            "width": gpu.pcie_width,
            "width_max": gpu.pcie_width_max,
            "generation": gpu.pcie_generation,
            "generation_max": gpu.pcie_generation_max,
            "performance_state": gpu.performance_state,
            "utilization_percent": gpu.utilization_percent,
        }
        if gpu.pcie_width and gpu.pcie_width_max and gpu.pcie_width < gpu.pcie_width_max:
            severity = _severity(has_all_lanes or gpu.pcie_width < max(widths))
            yield gpu_finding(sample, gpu, "gpu.pcie_width", severity, Remedy.REBOOT, **evidence)
        if (
            gpu.pcie_generation
            and gpu.pcie_generation_max
            and gpu.pcie_generation < gpu.pcie_generation_max
            and _works(gpu)
        ):
            severity = _severity(gpu.pcie_generation < max(generations))
            yield gpu_finding(sample, gpu, "gpu.pcie_generation", severity, Remedy.REBOOT, **evidence)

    yield from each_gpu(sample, judge)


def _works(gpu: Gpu) -> bool:
    is_busy = gpu.utilization_percent is not None and gpu.utilization_percent > 0
    return gpu.performance_state == 0 and is_busy and "idle" not in (gpu.clock_reasons or frozenset())


def _severity(is_behind: bool) -> Severity:
    return Severity.DEGRADED if is_behind else Severity.WARN
