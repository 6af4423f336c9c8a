"""Lustre's network on this node: interfaces that are down, or not trusted any more.

This node's own interface, unlike a server, can be put right here: the service that configures LNet is started again.
LNet takes 100 from an interface's health of 1000 at each failure and gives it back with time, so less than 1000 is a
sign and no fault.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nodewatch.checks._api import Phase, check
from nodewatch.model.health import Finding, Remedy, Severity
from nodewatch.model.storage_samples import LnetInterface, LustreSample


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """LNet health, 1000 at best: AWS's EFA client check takes less than that for degraded; 0 is not used any more at
    all."""

    warn_health: int = 1000
    dead_health: int = 0


@check(reads=LustreSample, phases=Phase.PERIODIC | Phase.DEEP, every_s=60.0, thresholds=Thresholds)
def lustre_lnet(sample: LustreSample, thresholds: Thresholds) -> Iterator[Finding]:
    """`filesystem.lnet_down` and `filesystem.lnet_unhealthy`, per interface of this node or of a peer."""
    if sample.lnet_error is not None:
        evidence: dict[str, object] = {"said": sample.lnet_error, "source": "lnetctl"}
        yield _finding("filesystem.lnet_down", "lnet", Severity.DEGRADED, Remedy.RESTART_SERVICE, evidence)
    for interface in sample.interfaces:
        if interface.status == "down":
            remedy = Remedy.HUMAN if interface.is_peer else Remedy.RESTART_SERVICE
            severity = Severity.WARN if interface.is_peer else Severity.DEGRADED
            yield _finding("filesystem.lnet_down", interface.nid, severity, remedy, _evidence(interface))
        elif interface.health is not None and interface.health < thresholds.warn_health:
            is_dead = interface.health <= thresholds.dead_health and not interface.is_peer
            severity = Severity.DEGRADED if is_dead else Severity.WARN
            remedy = Remedy.RESTART_SERVICE if is_dead else Remedy.HUMAN
            yield _finding("filesystem.lnet_unhealthy", interface.nid, severity, remedy, _evidence(interface))


def _evidence(interface: LnetInterface) -> dict[str, object]:
    return {
        "status": interface.status or None,
        "health": interface.health,
        "is_peer": interface.is_peer,
        "source": "lnetctl",
    }


def _finding(fault: str, subject: str, severity: Severity, remedy: Remedy, evidence: dict[str, object]) -> Finding:
    return Finding(fault=fault, subject=subject, severity=severity, remedy=remedy, evidence=evidence)
