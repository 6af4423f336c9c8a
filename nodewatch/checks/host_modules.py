"""Kernel modules that are not loaded although the hardware for them is there.

A driver that is missing is a matter of the image and never of the hardware: after a change of kernel it was not built for
the new one, or nothing loads it. So where a file for the running kernel is there, loading it (or the service that does) is
the cure; where none is, somebody has to install it, and neither a reboot nor another machine of the same image helps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nodewatch.checks._api import Phase, check
from nodewatch.errors import SensorError
from nodewatch.model.health import Finding, Remedy, Severity
from nodewatch.model.network_samples import ModulesSample


@dataclass(frozen=True, slots=True, kw_only=True)
class _Need:
    module: str
    hardware: str
    severity: Severity
    why: str


_NEEDS = (
    _Need(module="nvidia", hardware="nvidia", severity=Severity.DEGRADED, why="no program can use a GPU"),
    # nvidia-modprobe loads it for the first program that is started outside a container.
    _Need(module="nvidia_uvm", hardware="nvidia", severity=Severity.WARN, why="CUDA does not start inside containers"),
    _Need(module="efa", hardware="efa", severity=Severity.DEGRADED, why="there is no EFA device"),
    _Need(module="ib_uverbs", hardware="efa", severity=Severity.DEGRADED, why="no program can open an EFA device"),
    _Need(module="mlx5_core", hardware="infiniband", severity=Severity.DEGRADED, why="there is no InfiniBand device"),
    _Need(module="mlx5_ib", hardware="infiniband", severity=Severity.DEGRADED, why="there is no InfiniBand device"),
    _Need(module="ib_uverbs", hardware="infiniband", severity=Severity.DEGRADED, why="no program can open the device"),
    # Whether it is mounted is judged by shared_filesystem.
    _Need(
        module="lustre", hardware="lustre", severity=Severity.WARN, why="a file system in /etc/fstab cannot be mounted"
    ),
    _Need(
        module="lnet", hardware="lustre", severity=Severity.WARN, why="a file system in /etc/fstab cannot be mounted"
    ),
)
_OPTIONAL = (
    (
        _Need(module="gdrdrv", hardware="efa", severity=Severity.INFO, why="small messages from GPU memory are slower"),
        "nvidia",
    ),
    (
        _Need(
            module="nvidia_peermem",
            hardware="infiniband",
            severity=Severity.INFO,
            why="without it, and without dma-buf, data takes the way through host memory",
        ),
        "nvidia",
    ),
)
"""Good to have where both kinds of hardware are there; only what is installed and not loaded is worth a word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostModulesThresholds:
    """When a module is late, and which of them the site does without."""

    settle_s: float = 120.0
    """After a boot. Ours, as efa_grace_s: a module is loaded as its device appears, on p5en late (field notes 3.4)."""
    ignored: tuple[str, ...] = ()
    """Modules that are not missed, such as `["lnet"]`."""


@check(reads=ModulesSample, phases=Phase.PERIODIC | Phase.DEEP, every_s=60.0, thresholds=HostModulesThresholds)
def host_modules(sample: ModulesSample, thresholds: HostModulesThresholds) -> Iterator[Finding]:
    """`host.module_missing` on the module: degraded for the drivers of GPUs and fabric, a warning or information for others.

    Which module serves which hardware: NVIDIA's driver README, the EFA installer, Lustre's client; hardware is seen on the
    PCI bus by vendor and class. Raises SensorError while one that is missing may still be loaded after a boot.
    """
    missing: dict[str, _Need] = {}
    for need in _NEEDS:
        if need.hardware in sample.hardware and need.module not in sample.loaded:
            missing.setdefault(need.module, need)
    for need, other in _OPTIONAL:
        wanted = {need.hardware, other} <= sample.hardware and need.module not in sample.loaded
        if wanted and need.module in sample.installed:
            missing.setdefault(need.module, need)
    wanting = [need for need in missing.values() if need.module not in thresholds.ignored]
    if wanting and sample.uptime_s < thresholds.settle_s:
        raise SensorError(
            f"the kernel module {wanting[0].module} is not loaded so soon after the boot: it may still be"
        )
    for need in wanting:
        is_installed = need.module in sample.installed
        yield Finding(
            fault="host.module_missing",
            subject=need.module,
            severity=need.severity,
            remedy=Remedy.RESTART_SERVICE if is_installed else Remedy.HUMAN,
            evidence={
                "for": need.hardware,
                "means": need.why,
                "kernel": sample.kernel,
                "is_installed": is_installed,
                "try": f"modprobe {need.module}" if is_installed else f"install {need.module} for this kernel",
                "source": "/proc/modules, /sys/bus/pci",
            },
        )
