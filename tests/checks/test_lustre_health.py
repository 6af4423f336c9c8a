"""lustre_health: what the client says of itself."""

from __future__ import annotations

import pytest

from nodewatch.checks.lustre_health import lustre_health
from nodewatch.model.health import Remedy, Severity
from nodewatch.model.storage_samples import LustreSample


@pytest.mark.parametrize(
    ("health", "is_well"), [(None, True), ("healthy", True), ("LBUG", False), ("NOT HEALTHY", False)]
)
def test_health(health: str | None, is_well: bool) -> None:
    findings = list(lustre_health(LustreSample(health=health)))
    assert [(f.fault, f.severity, f.remedy) for f in findings] == (
        [] if is_well else [("filesystem.client_unhealthy", Severity.DEGRADED, Remedy.HUMAN)]
    )
    assert all(f.evidence["said"] == health for f in findings)
