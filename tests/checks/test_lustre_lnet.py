"""lustre_lnet: this node's interfaces, peers, and LNet that is not there."""

from __future__ import annotations

import pytest

from nodewatch.checks.lustre_lnet import Thresholds, lustre_lnet
from nodewatch.model.health import Remedy, Severity
from nodewatch.model.storage_samples import LnetInterface, LustreSample


@pytest.mark.parametrize(
    ("status", "health", "is_peer", "expected"),
    [
        ("up", 1000, False, []),
        ("up", None, False, []),
        ("na", 1000, True, []),
        ("up", 640, False, [("filesystem.lnet_unhealthy", Severity.WARN, Remedy.HUMAN)]),
        ("up", 0, False, [("filesystem.lnet_unhealthy", Severity.DEGRADED, Remedy.RESTART_SERVICE)]),
        ("na", 0, True, [("filesystem.lnet_unhealthy", Severity.WARN, Remedy.HUMAN)]),
        ("down", 1000, False, [("filesystem.lnet_down", Severity.DEGRADED, Remedy.RESTART_SERVICE)]),
        ("down", None, True, [("filesystem.lnet_down", Severity.WARN, Remedy.HUMAN)]),
    ],
)
def test_interfaces(status: str, health: int | None, is_peer: bool, expected: list[object]) -> None:
    interface = LnetInterface(nid="10.0.0.1@tcp", status=status, health=health, is_peer=is_peer)
    findings = list(lustre_lnet(LustreSample(interfaces=(interface,)), Thresholds()))
    assert [(f.fault, f.severity, f.remedy) for f in findings] == expected
    assert all(f.evidence["health"] == health for f in findings)


def test_lnet_that_is_not_there() -> None:
    (finding,) = lustre_lnet(LustreSample(lnet_error="opening /dev/lnet failed"), Thresholds())
    assert (finding.fault, finding.subject, finding.remedy) == ("filesystem.lnet_down", "lnet", Remedy.RESTART_SERVICE)
