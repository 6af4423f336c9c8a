"""GPUs for which the driver itself names a recovery action."""

from __future__ import annotations

from collections.abc import Iterator

from nodewatch.checks._api import Phase, check
from nodewatch.checks._gpu import each_gpu, gpu_finding
from nodewatch.model.health import Finding, Remedy, Severity
from nodewatch.model.samples import Gpu, GpuSample

_ACTIONS = {
    "gpu_reset": (Severity.FATAL, Remedy.RESET_GPU),
    "node_reboot": (Severity.FATAL, Remedy.REBOOT),
    "drain_p2p": (Severity.DEGRADED, Remedy.RESET_GPU),
    "drain_and_reset": (Severity.DEGRADED, Remedy.RESET_GPU),
    "bus_reset": (Severity.FATAL, Remedy.REBOOT),
    "system_reboot": (Severity.FATAL, Remedy.REBOOT),
    "recover_imex_domain": (Severity.WARN, Remedy.RESTART_SERVICE),
}
"""The first four as Xid 154, which announces a change of this action, has them in knowledge/xid.toml.

The other three are newer: a bus reset is beyond what resets one GPU, the IMEX domain is a service of its own.
"""


@check(reads=GpuSample, phases=Phase.PROLOG | Phase.EPILOG | Phase.PERIODIC | Phase.DEEP, every_s=10.0)
def gpu_recovery_action(sample: GpuSample) -> Iterator[Finding]:
    """`gpu.recovery_action` with the remedy that the driver asks for; the GPU is unusable for new work until then.

    Draining peer-to-peer traffic comes first where it is asked for, and leaves running work alone. An action that nobody
    described warns and needs a human.
    """

    def judge(gpu: Gpu) -> Iterator[Finding]:
        if gpu.recovery_action not in (None, "none"):
            severity, remedy = _ACTIONS.get(gpu.recovery_action or "", (Severity.WARN, Remedy.HUMAN))
            yield gpu_finding(sample, gpu, "gpu.recovery_action", severity, remedy, recovery_action=gpu.recovery_action)

    yield from each_gpu(sample, judge)
