"""Whether an action should be begun now: idempotence, and the waits between tries of one that failed."""

from __future__ import annotations

from nodewatch.model.actions import Action
from nodewatch.model.ledger import ActionState, Ledger
from nodewatch.policy.rules import Rules


def wait_left(key: str, ledger: Ledger, rules: Rules, now: float) -> float:
    """Seconds until a failed action may be tried again, 0 when it may be begun now."""
    record = ledger.actions.get(key)
    if record is None or record.state is not ActionState.FAILED:
        return 0.0
    first, most = (
        (rules.capacity_retry_s, rules.capacity_retry_max_s)
        if record.is_capacity
        else (rules.retry_s, rules.retry_max_s)
    )
    # The exponent is bounded: 2.0 ** 2000 raises OverflowError.
    wait = min(first * 2.0 ** min(record.tries - 1, 30), most)
    return max(0.0, record.at + wait - now)


def blocked(key: str, ledger: Ledger, rules: Rules, now: float) -> str | None:
    """Why a failed action is not tried now; None when nothing stands against it."""
    left = wait_left(key, ledger, rules, now)
    if left <= 0:
        return None
    record = ledger.actions[key]
    what = "EC2 has no capacity" if record.is_capacity else "the last try failed"
    return f"{what} ({record.error}); trying again in {left:.0f} s"


def due(action: Action, ledger: Ledger, rules: Rules, now: float) -> bool:
    """Whether `action` is to be begun now: not done yet, and not waiting after a failure.

    One that was intended and has no outcome is due at once: a crash came between, and beginning it again is safe.
    """
    return not ledger.is_done(action.key) and wait_left(action.key, ledger, rules, now) <= 0
