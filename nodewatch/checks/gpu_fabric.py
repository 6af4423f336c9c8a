"""GPUs that the fabric manager has not set up, on machines with NVSwitch."""

from __future__ import annotations

from collections.abc import Iterator

from nodewatch.checks._api import Phase, check
from nodewatch.checks._gpu import each_gpu, gpu_finding
from nodewatch.model.health import Finding, Remedy, Severity
from nodewatch.model.samples import Gpu, GpuSample


@check(reads=GpuSample, phases=Phase.PROLOG | Phase.EPILOG | Phase.PERIODIC | Phase.DEEP, every_s=30.0)
def gpu_fabric(sample: GpuSample) -> Iterator[Finding]:
    """`gpu.fabric_not_ready` and `gpu.fabric_fault`: on such a GPU CUDA does not start (error 802).

    A fabric that is being set up is degraded, one that was not begun or ended with another status than success is fatal; the
    fabric manager is restarted first. A machine with one GPU has no fabric to wait for, and warns. A GPU that tells no fabric
    state (before Hopper, or without NVSwitch) is left out. What the fabric's own health summary says is degraded.
    """
    is_alone = len(sample.gpus) + len(sample.unreadable) < 2

    def judge(gpu: Gpu) -> Iterator[Finding]:
        state, status = gpu.fabric_state, gpu.fabric_status
        evidence = {"state": state, "status": status, "faults": list(gpu.fabric_faults)}
        if state is not None and state != "not_supported":
            severity = None
            if state == "in_progress":
                severity = Severity.DEGRADED
            elif state != "completed" or status not in (None, "success"):
                severity = Severity.FATAL
            if severity is not None:
                severity = Severity.WARN if is_alone else severity
                yield gpu_finding(sample, gpu, "gpu.fabric_not_ready", severity, Remedy.RESTART_SERVICE, **evidence)
        if gpu.fabric_faults:
            yield gpu_finding(sample, gpu, "gpu.fabric_fault", Severity.DEGRADED, Remedy.RESET_GPU, **evidence)

    yield from each_gpu(sample, judge)
