"""Events that EC2 has scheduled, planned around jobs by their NotBefore: not days early, nor under a running job. Pure."""

from __future__ import annotations

from nodewatch.model.ledger import Case
from nodewatch.policy.rules import Rules

FAULT = "ec2.event"
_HOUR_S = 3600.0


def starts_at(case: Case) -> float | None:
    """When EC2 begins with what the case is about; None for other cases, and where EC2 named no time."""
    told = case.evidence.get("starts_at") if case.fault == FAULT else None
    return float(told) if isinstance(told, int | float) and not isinstance(told, bool) else None


def not_yet(case: Case, rules: Rules, now: float) -> str | None:
    """A node that EC2 will retire, stop or reboot goes on working until `event_lead_s` before; None when it is time."""
    start = starts_at(case)
    if start is None:
        return None
    left = start - rules.event_lead_s - now
    if left <= 0:
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
