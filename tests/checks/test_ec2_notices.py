"""ec2_notices: capacity that goes away."""

from __future__ import annotations

import pytest

from nodewatch.checks.ec2_notices import Thresholds, ec2_notices
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
    (finding,) = ec2_notices(Ec2Sample(notices=(notice,)), Thresholds())
    assert (finding.fault, finding.subject, finding.severity, finding.remedy) == (fault, "i-1", severity, remedy)
    assert finding.evidence["at"] == "2026-03-01T10:02:00Z"


@pytest.mark.parametrize(
    ("seconds_left", "severity"),
    [(90_000.0, None), (86_000.0, "info"), (2401.0, "info"), (2400.0, "degraded"), (-60.0, "degraded")],
)
def test_how_near_the_end_of_a_block_is(seconds_left: float, severity: str | None) -> None:
    block = Ec2Notice(kind="capacity_block", subject="capacity block", ends_at=1_000_000.0, is_announced=False)
    sample = Ec2Sample(notices=(block,), read_at=1_000_000.0 - seconds_left)
    found = [(finding.severity.word, finding.evidence["seconds_left"]) for finding in ec2_notices(sample, Thresholds())]
    assert found == ([] if severity is None else [(severity, seconds_left)])
