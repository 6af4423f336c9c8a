"""ec2_events: by code, and by how near they are where that is known."""

from __future__ import annotations

import pytest

from nodewatch.checks.ec2_events import Thresholds, ec2_events
from nodewatch.model.cloud_samples import Ec2Event, Ec2Instance, Ec2Sample
from nodewatch.model.health import Remedy, Severity


@pytest.mark.parametrize(
    ("code", "read_at", "severity", "remedy"),
    [
        ("instance-retirement", None, Severity.DEGRADED, Remedy.REPLACE),
        ("instance-stop", None, Severity.DEGRADED, Remedy.REPLACE),
        ("instance-reboot", None, Severity.WARN, Remedy.REBOOT),
        ("system-reboot", None, Severity.WARN, Remedy.NONE),
        ("system-maintenance", 0.0, Severity.WARN, Remedy.NONE),
        ("system-maintenance", 999_000.0, Severity.DEGRADED, Remedy.NONE),
        ("news", None, Severity.WARN, Remedy.HUMAN),
    ],
)
def test_codes(code: str, read_at: float | None, severity: Severity, remedy: Remedy) -> None:
    event = Ec2Event(event_id="e-1", code=code, not_before="1970-01-12T13:46:40Z", starts_at=1_000_000.0)
    sample = Ec2Sample(instances=(Ec2Instance(instance_id="i-1", events=(event,)),), read_at=read_at)
    (finding,) = ec2_events(sample, Thresholds())
    assert (finding.fault, finding.subject, finding.severity, finding.remedy) == (
        "ec2.event",
        "i-1 e-1",
        severity,
        remedy,
    )
    assert finding.evidence["not_before"] == "1970-01-12T13:46:40Z"
