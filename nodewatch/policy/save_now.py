"""Which marked jobs are asked for a checkpoint now, since their work on a node comes to an end soon. Pure.

A fatal fault is no case of it: the job is put back into the queue at once, and its SIGTERM asks for a checkpoint as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from nodewatch.model.cluster import Snapshot
from nodewatch.model.health import Severity
from nodewatch.model.ledger import Case, Ledger, MarkedJob, Step
from nodewatch.policy import guards
from nodewatch.policy.rules import Rules
from nodewatch.policy.scheduled import jobs_must_go_at
from nodewatch.policy.verbs import FAMILY
from nodewatch.policy.wishes import REPAIRS

_BEFORE_S = 300.0
"""A job that EC2's event makes go is asked once more so long before: its last checkpoint may be hours old by then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveRequest:
    """One job's request. The agent asks the program once for each key."""

    job_id: int
    key: str

    def to_json(self) -> dict[str, object]:
        """As a request in the answer to an agent."""
        return {"kind": "save_now", "job": self.job_id, "key": self.key, "stop": False}


def save_requests(
    snapshot: Snapshot, ledger: Ledger, rules: Rules, now: float
) -> Mapping[str, tuple[SaveRequest, ...]]:
    """Requests by node: every node of a job is told, since a program may look for the file on its first rank alone."""
    if guards.observing(rules) is not None:
        return {}
    reasons: dict[str, str] = {}
    for node, key in _reasons(ledger, rules, now):
        reasons.setdefault(node, key)
    found: dict[str, list[SaveRequest]] = {}
    for job in ledger.jobs.values():
        if not _runs(job, snapshot):
            continue
        why = next((known for known in (reasons.get(n) or _drained(n, snapshot) for n in job.nodes) if known), None)
        if why is not None:
            for node in job.nodes:
                found.setdefault(node, []).append(SaveRequest(job_id=job.job_id, key=why))
    return {node: tuple(requests) for node, requests in found.items()}


def _reasons(ledger: Ledger, rules: Rules, now: float) -> Iterator[tuple[str, str]]:
    """(node, key), the most pressing first."""
    for case in ledger.open_cases:
        key = _key_of(case, rules, now)
        if key is not None:
            yield case.node, key
    for node, wish in sorted(ledger.wishes.items()):
        # A drain is seen at the node itself: it is carried out at once, and the wish is gone.
        if wish.verb in REPAIRS:
            yield node, wish.key


def _key_of(case: Case, rules: Rules, now: float) -> str | None:
    if case.step is not Step.DRAINING or case.severity >= Severity.FATAL or case.family == FAMILY:
        return None
    must_go_at = jobs_must_go_at(case, rules)
    if must_go_at is not None and now >= must_go_at - _BEFORE_S:
        return f"{case.case_id}:last"
    return case.case_id


def _drained(name: str, snapshot: Snapshot) -> str | None:
    """The key for a node that somebody took out of service, by whatever means: its jobs end there, or are ended."""
    node = snapshot.nodes.get(name)
    return f"{name} drained: {node.reason}"[:200] if node is not None and node.is_out else None


def _runs(job: MarkedJob, snapshot: Snapshot) -> bool:
    seen = snapshot.jobs.get(job.job_id)
    return job.ended_at is None and seen is not None and seen.is_running
