"""What agents are told for the sake of their jobs: the cluster's failure rate, the site's defaults, and who is to save now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from nodewatch.model.auto_resume import SiteDefault, mark_of
from nodewatch.model.cluster import Snapshot
from nodewatch.model.ledger import Ledger
from nodewatch.policy import inside
from nodewatch.policy.mtbf import PRIOR_NODE_MTBF_S, node_mtbf_s
from nodewatch.policy.rules import Rules
from nodewatch.policy.save_now import SaveRequest, save_requests

_RATE_EVERY_S = 60.0
_FRESH_S = 30.0
"""An older picture of Slurm says nothing of which jobs run: an agent would take the files of one that has begun since."""


class JobSide:
    """Looks once a tick; agents' messages, on their threads, are answered from what was found then."""

    def __init__(self, defaults: Iterable[SiteDefault], *, since: float) -> None:
        """`since` is from when on the journal tells of this cluster's failures, in seconds since the epoch."""
        self._defaults = tuple(defaults)
        self._told_defaults = [each.to_json() for each in self._defaults]
        self._since = since
        self._rate = PRIOR_NODE_MTBF_S
        self._rate_at = float("-inf")
        self._saves: Mapping[str, tuple[SaveRequest, ...]] = {}
        self._bad_nodes: Mapping[str, tuple[dict[str, object], ...]] = {}
        self._jobs: tuple[float, Mapping[str, list[int]]] = (float("-inf"), {})

    def mark(self, started: Mapping[str, Any]) -> str | None:
        """What counts as the mark of the job that a `job_started` is about: the user's words, then the site's."""
        told = started.get("auto_resume")
        return mark_of(
            None if told is None else str(told),
            self._defaults,
            partition=str(started.get("partition") or ""),
            account=str(started.get("account") or ""),
            user=str(started.get("user") or ""),
            job_name=str(started.get("name") or ""),
        )

    def look(self, snapshot: Snapshot, ledger: Ledger, rules: Rules, told: Iterable[inside.Told], now: float) -> None:
        """Find out what is to be told until the next tick; `told` are the jobs that may go on without bad nodes."""
        if snapshot.slurm_error is not None:
            return
        jobs: dict[str, list[int]] = {}
        for job_id, job in snapshot.jobs.items():
            for node in job.nodes if job.is_active else ():
                jobs.setdefault(node, []).append(job_id)
        self._jobs = (snapshot.taken_at, jobs)
        self._saves = save_requests(snapshot, ledger, rules, now)
        self._bad_nodes = inside.requests(told)
        if not 0 <= now - self._rate_at < _RATE_EVERY_S:
            self._rate_at = now
            self._rate = node_mtbf_s(
                ledger.cases.values(), rules, nodes=len(snapshot.nodes), since=self._since, now=now
            )

    def requests(self, node: str) -> list[dict[str, Any]]:
        """Requests to the agent of `node`."""
        return [*(each.to_json() for each in self._saves.get(node, ())), *self._bad_nodes.get(node, ())]

    def cluster(self, node: str, now: float) -> dict[str, Any]:
        """What each answer to the agent of `node` holds under `cluster`."""
        told: dict[str, Any] = {"node_mtbf_s": round(self._rate, 1), "auto_resume": self._told_defaults}
        taken_at, jobs = self._jobs
        if 0 <= now - taken_at < _FRESH_S:
            told["jobs"] = jobs.get(node, [])
        return told
