"""ec2_notices: capacity that goes away."""

from __future__ import annotations

import pytest

from nodewatch.checks.ec2_notices import ec2_notices
from nodewatch.model.cloud_samples import Ec2Notice, Ec2Sample
from nodewatch.model.health import Remedy, Severity


@pytest.mark.parametrize(
    ("kind", "is_announced", "fault", "severity", "remedy"),
    [
        ("spot_interruption", True, "ec2.spot_interruption", Severity.FATAL, Remedy.REPLACE),
        ("rebalance", True, "ec2.rebalance_recommended", Severity.WARN, Remedy.REPLACE),
        ("capacity_block", True, "ec2.capacity_block_ends", Severity.DEGRADED, Remedy.HUMAN),
        ("capacity_block", False, "ec2.capacity_block_ends", Severity.INFO, Remedy.HUMAN),
    ],
)
def test_notices(kind: str, is_announced: bool, fault: str, severity: Severity, remedy: Remedy) -> None:
    notice = Ec2Notice(kind=kind, subject="i-1", at="2026-03-01T10:02:00Z", is_announced=is_announced)
    (finding,) = ec2_notices(Ec2Sample(notices=(notice,)))
    assert (finding.fault, finding.subject, finding.severity, finding.remedy) == (fault, "i-1", severity, remedy)
    assert finding.evidence["at"] == "2026-03-01T10:02:00Z"
