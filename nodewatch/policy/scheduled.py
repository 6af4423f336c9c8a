"""Events that EC2 has scheduled, planned around jobs by their NotBefore: not days early, nor under a running job. Pure.

An event is told by the agent (instance metadata) and by EC2 (DescribeInstanceStatus); both give it the same subject, the
instance and the event's id, so that it is one finding, and one that EC2 alone tells counts when the agent is silent.
"""

from __future__ import annotations

from nodewatch.model.health import Finding
from nodewatch.model.ledger import Case
from nodewatch.policy.rules import Rules

FAULT = "ec2.event"
_HOUR_S = 3600.0


def starts_at(about: Case | Finding) -> float | None:
    """When EC2 begins with what the case or finding is about; None for others, and where EC2 named no time."""
    told = about.evidence.get("starts_at") if about.fault == FAULT else None
    return float(told) if isinstance(told, int | float) and not isinstance(told, bool) else None


def is_far(about: Case | Finding, rules: Rules, now: float) -> bool:
    """Whether it is an event for which nothing is done yet: any other fault of the machine comes before it."""
    start = starts_at(about)
    return start is not None and start - rules.event_lead_s > now


def is_same(case: Case, finding: Finding) -> bool:
    """Whether the finding is the very event of the case, whoever tells it and since whenever."""
    return finding.fault == FAULT and (case.fault, case.subject) == finding.identity


def is_moved(case: Case, finding: Finding) -> bool:
    """Whether EC2, or the site, has put the event of the case off or brought it forward."""
    return is_same(case, finding) and starts_at(case) != starts_at(finding)


def not_yet(case: Case, rules: Rules, now: float) -> str | None:
    """A node that EC2 will retire, stop or reboot goes on working until `event_lead_s` before; None when it is time."""
    start = starts_at(case)
    if start is None:
        return None
    left = start - rules.event_lead_s - now
    if not is_far(case, rules, now):
        return None
    code = str(case.evidence.get("code") or "event")
    return (
        f"EC2 begins its {code} of {case.node} in {(start - now) / _HOUR_S:.1f} h: it works for another "
        f"{left / _HOUR_S:.1f} h and is drained then"
    )


def jobs_must_go_at(case: Case, rules: Rules) -> float | None:
    """When jobs that still run there are put back into the queue, so that EC2 does not end them; None: never for this."""
    start = starts_at(case)
    return None if start is None else start - rules.event_save_s
