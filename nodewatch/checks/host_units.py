"""The services that a node needs: munge, slurmd, and NVIDIA's fabric manager, persistence daemon and DCGM."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nodewatch.checks._api import Phase, check
from nodewatch.model.health import Finding, Remedy, Severity
from nodewatch.model.host_samples import Unit, UnitSample


@dataclass(frozen=True, slots=True, kw_only=True)
class HostUnitsThresholds:
    """How long services have, and which of them jobs cannot do without."""

    settle_s: float = 300.0
    """After a boot; systemd gives up on a start after 90 s (DefaultTimeoutStartSec) and starts three or four in a row."""
    vital: tuple[str, ...] = ("munge", "nvidia-fabricmanager")
    """Without munge no job starts; without the fabric manager no program on a machine with NVSwitch can use a GPU (field
    notes L11: 20 days unnoticed). The others are warnings: Slurm itself sees a slurmd that is gone."""


@check(reads=UnitSample, phases=Phase.PERIODIC | Phase.DEEP, every_s=60.0, thresholds=HostUnitsThresholds)
def host_units(sample: UnitSample, thresholds: HostUnitsThresholds) -> Iterator[Finding]:
    """`host.unit_failed` on the service: degraded (restart_service) for a vital one, else a warning. `host.unit_down`, a
    warning, for one that is enabled and does not run. One that is not installed or not enabled is none of our business."""
    for unit in sample.units:
        if unit.load != "loaded" or unit.file not in ("enabled", "enabled-runtime", "linked", "generated"):
            continue
        if unit.active == "failed":
            yield _finding("host.unit_failed", unit, sample, thresholds)
        elif unit.active == "inactive" and sample.uptime_s >= thresholds.settle_s:
            yield _finding("host.unit_down", unit, sample, thresholds)


def _finding(fault: str, unit: Unit, sample: UnitSample, thresholds: HostUnitsThresholds) -> Finding:
    is_vital = unit.name in thresholds.vital and fault == "host.unit_failed"
    if unit.name == "nvidia-fabricmanager" and not sample.has_nvswitch:
        # An image for all types has it enabled everywhere, and without a switch it ends with an error.
        is_vital = False
    return Finding(
        fault=fault,
        subject=unit.name,
        severity=Severity.DEGRADED if is_vital else Severity.WARN,
        remedy=Remedy.RESTART_SERVICE,
        evidence={
            "active": unit.active,
            "sub": unit.sub,
            "result": unit.result,
            "enabled": unit.file,
            "restarts": unit.restarts,
        },
    )
