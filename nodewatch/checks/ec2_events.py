"""Events that EC2 has scheduled for the instance.

EC2 lists an event for up to a week after it is over, marked `[Completed]`; those are left out where they are read. What
an event asks for follows from its code. When it comes stands in the evidence: whoever plans the repair has until then,
and an event whose start is near drains the node, so that no job is running when it comes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nodewatch.checks._api import Phase, check
from nodewatch.model.cloud_samples import Ec2Event, Ec2Sample
from nodewatch.model.health import Finding, Remedy, Severity

_BY_CODE = {
    # The host is degraded: the instance stops or ends for good. Another machine is the cure, before that.
    "instance-retirement": (Severity.DEGRADED, Remedy.REPLACE),
    "instance-stop": (Severity.DEGRADED, Remedy.REPLACE),
    # A reboot by ourselves, earlier, is as good as EC2's.
    "instance-reboot": (Severity.WARN, Remedy.REBOOT),
    # The host reboots or loses its network for a while, whatever the instance does: only its jobs can be kept away.
    "system-reboot": (Severity.WARN, Remedy.NONE),
    "system-maintenance": (Severity.WARN, Remedy.NONE),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """`near_s`: an event that starts sooner than this drains the node. Ours: an hour, within which most jobs can save
    their state."""

    near_s: float = 3600.0


@check(reads=Ec2Sample, phases=Phase.PERIODIC, every_s=300.0, thresholds=Thresholds)
def ec2_events(sample: Ec2Sample, thresholds: Thresholds) -> Iterator[Finding]:
    """`ec2.event` for each event that is still to come; a code that is not known is a warning that asks for a human."""
    for instance in sample.instances:
        for event in instance.events:
            severity, remedy = _BY_CODE.get(event.code, (Severity.WARN, Remedy.HUMAN))
            seconds = _until(event, sample.read_at)
            if seconds is not None and seconds < thresholds.near_s:
                severity = max(severity, Severity.DEGRADED)
            yield Finding(
                fault="ec2.event",
                subject=f"{instance.instance_id} {event.event_id}",
                severity=severity,
                remedy=remedy,
                evidence={
                    "code": event.code,
                    "description": event.description,
                    "not_before": event.not_before,
                    "not_after": event.not_after,
                    "not_before_deadline": event.deadline,
                    "starts_at": event.starts_at,
                    "seconds_left": seconds,
                    "source": sample.source,
                },
            )


def _until(event: Ec2Event, read_at: float | None) -> float | None:
    return None if event.starts_at is None or read_at is None else event.starts_at - read_at
