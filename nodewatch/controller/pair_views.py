"""What `nodewatch check-pairs` shows of a pair test: a pure function to plain JSON."""

from __future__ import annotations

from typing import Any

from nodewatch.model.cluster import Snapshot
from nodewatch.model.ledger import Ledger
from nodewatch.model.pairs import JOB_NAME, PairTest
from nodewatch.policy.pairs import free_nodes


def pair_status(key: str, snapshot: Snapshot, ledger: Ledger) -> dict[str, Any]:
    """How far the test is: `waiting`, `running`, `ended` or `gone`; its runs, and the verdict of each node once it ended."""
    test = ledger.pair_tests.get(key)
    if test is None or test.is_withdrawn:
        return {
            "key": key,
            "state": "gone",
            "why": "the test was withdrawn, or is too long ago",
            "runs": [],
            "nodes": {},
        }
    runs = [{**run.to_json(), "at": run.at} for run in test.runs]
    told: dict[str, Any] = {"key": key, "runs": runs, "nodes": {}, "culprits": []}
    judged = test.judgement
    if judged is None:
        return {**told, **_progress(test, snapshot, ledger)}
    words = dict.fromkeys(judged.good, "good") | dict.fromkeys(judged.untold, "untold")
    words |= dict.fromkeys(judged.culprits, "culprit")
    return {
        **told,
        "state": "ended",
        "why": judged.why,
        "nodes": {node: words.get(node, "untold") for node in test.nodes},
        "culprits": [{"node": node, **finding.to_json()} for node, finding in sorted(judged.culprits.items())],
    }


def pairs_outline(ledger: Ledger) -> dict[str, Any]:
    """What `nodewatch status` tells of pair tests: those that are open, the last that was judged, and who stands named."""
    tests = sorted(ledger.pair_tests.values(), key=lambda test: (test.at, test.key))
    judged = [test for test in tests if test.judgement is not None and test.ended_at is not None]
    last = max(judged, key=lambda test: (test.ended_at, test.key), default=None)
    return {
        "open": [{"key": t.key, "nodes": len(t.nodes), "runs": len(t.runs), "by": t.by} for t in tests if t.is_open],
        "culprits": sorted(ledger.pair_culprits),
        "last": None
        if last is None or last.judgement is None
        else {"key": last.key, "at": last.ended_at, "nodes": len(last.nodes), "why": last.judgement.why},
    }


def _progress(test: PairTest, snapshot: Snapshot, ledger: Ledger) -> dict[str, Any]:
    going = [
        "+".join(job.nodes)
        for _, job in sorted(snapshot.jobs.items())
        if job.name == JOB_NAME and job.is_active and set(job.nodes) & set(test.nodes)
    ]
    ran = f"{len(test.runs)} runs ended"
    if going:
        return {"state": "running", "why": f"{ran}; {', '.join(going)} run"}
    busy = [why for why in free_nodes(test.nodes, snapshot, ledger).values() if why is not None]
    more = " ..." if len(busy) > 3 else ""
    return {"state": "waiting", "why": "; ".join([ran, *busy[:3]]) + more}
