"""How often a node interrupts a job: what was seen of this cluster, and what others saw where that is little yet. Pure.

A job on n nodes is interrupted n times as often: agents divide by the number of its nodes.
"""

from __future__ import annotations

from collections.abc import Iterable

from nodewatch.model.health import Severity
from nodewatch.model.ledger import Case
from nodewatch.policy.history import speaks_of_hardware
from nodewatch.policy.rules import Rules

_DAY_S = 86400.0
PRIOR_NODE_MTBF_S = 16_384 / 8 * 54 * _DAY_S / 419
"""264 days: 419 unexpected interruptions in 54 days on 16,384 H100 in machines of eight (Llama 3, arXiv 2407.21783, section
3.3.4)."""
_PRIOR_FAILURES = 1.0
"""The prior weighs as much as one failure seen: 16 nodes without one for 16 days, or ten with one in a month, say as much as
it does."""
_LONGEST_S = 90 * _DAY_S
"""Older failures say little of a cluster whose bad machines have been replaced since."""


def node_mtbf_s(cases: Iterable[Case], rules: Rules, *, nodes: int, since: float, now: float) -> float:
    """Seconds between two failures of one node that end its job, from `cases` and the nodes' time since `since`.

    The mean of a gamma posterior: (prior's node-seconds + those seen) / (prior's failures + those seen).
    """
    start = max(since, now - _LONGEST_S)
    failures = sum(
        1
        for case in cases
        if case.opened_at >= start and case.severity >= Severity.FATAL and speaks_of_hardware(case, rules)
    )
    seen_s = max(0, nodes) * max(0.0, now - start)
    return (_PRIOR_FAILURES * PRIOR_NODE_MTBF_S + seen_s) / (_PRIOR_FAILURES + failures)
