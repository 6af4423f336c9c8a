"""The controller's Prometheus metrics, read from the engine when asked."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from nodewatch.controller.engine import Engine
from nodewatch.model.health import NodeState
from nodewatch.model.ledger import Ledger
from nodewatch.model.pairs import PairResult
from nodewatch.policy import bootstrap

_MOST_JOBS = 200
"""Jobs that are told one by one: each is a series of its own."""


class EngineCollector:
    """Reads frozen values only, so a scrape never waits for a tick."""

    def __init__(self, engine: Engine, clock: Callable[[], float] = time.time) -> None:
        self._engine = engine
        self._clock = clock

    def collect(self) -> Iterable[Metric]:
        """All metrics at this moment."""
        return list(self._collect())

    def _collect(self) -> Iterator[Metric]:
        engine = self._engine
        snapshot, ledger = engine.snapshot, engine.ledger
        up = GaugeMetricFamily(
            "nodewatch_source_readable", "1 when the source was read whole this tick", labels=["source"]
        )
        up.add_metric(["slurm"], 0.0 if snapshot.slurm_error else 1.0)
        up.add_metric(["ec2"], 0.0 if snapshot.ec2_error else 1.0)
        yield up
        nodes = GaugeMetricFamily("nodewatch_nodes", "Nodes by the state that their agents report", labels=["state"])
        states = [view.verdict.state for view in snapshot.agents.values() if view.verdict is not None]
        for state in NodeState:
            nodes.add_metric([state.value], states.count(state))
        yield nodes
        cases = GaugeMetricFamily("nodewatch_open_cases", "Open cases", labels=["family", "rung", "step"])
        tally: dict[tuple[str, str, str], int] = {}
        for case in ledger.open_cases:
            key = (case.family, case.rung.word, case.step.value)
            tally[key] = tally.get(key, 0) + 1
        for labels, count in sorted(tally.items()):
            cases.add_metric(list(labels), count)
        yield cases
        yield GaugeMetricFamily("nodewatch_held", "Things held back, each with a reason", value=len(engine.held))
        spares = sum(1 for node in snapshot.nodes.values() if node.is_spare)
        yield GaugeMetricFamily("nodewatch_spares", "Warm spares held", value=spares)
        actions = CounterMetricFamily(
            "nodewatch_actions", "Actions by outcome since start", labels=["action", "outcome"]
        )
        for name, count in sorted(engine.counts.items()):
            outcome = "failed" if name.endswith("_failed") else "done"
            actions.add_metric([name.removesuffix("_failed"), outcome], count)
        yield actions
        yield from self._progress()
        yield from _bootstrap(ledger)
        yield from _pair_tests(ledger)

    def _progress(self) -> Iterator[Metric]:
        step = GaugeMetricFamily(
            "nodewatch_job_last_step",
            "The lowest step of a marked job's ranks, as their heartbeats say",
            labels=["job"],
        )
        still = GaugeMetricFamily(
            "nodewatch_job_seconds_since_step", "Since any rank of a marked job made a step", labels=["job"]
        )
        known = self._engine.heartbeats.steps(self._clock())
        marked = sorted(known.keys() & self._engine.ledger.jobs.keys())
        # The newest: a job that is older is one of many, and `nodewatch job` tells of it.
        for job_id in marked[-_MOST_JOBS:]:
            last, seconds = known[job_id]
            step.add_metric([str(job_id)], last)
            still.add_metric([str(job_id)], seconds)
        yield step
        yield still


def _bootstrap(ledger: Ledger) -> Iterator[Metric]:
    failed = GaugeMetricFamily(
        "nodewatch_bootstrap_failures", "Machines of open cases that were launched in vain", labels=["cause"]
    )
    causes = Counter(str(one.get("cause")) for case in ledger.open_cases for one in bootstrap.tries(case))
    for cause in bootstrap.Cause:
        failed.add_metric([cause.value], causes[cause.value])
    yield failed


def _pair_tests(ledger: Ledger) -> Iterator[Metric]:
    """Of the pair tests that are remembered, the last few: one that is withdrawn is neither open nor ended."""
    tests = ledger.pair_tests.values()
    yield GaugeMetricFamily(
        "nodewatch_pair_tests_open",
        "Pair tests that were asked for and not judged",
        value=sum(t.is_open for t in tests),
    )
    runs = GaugeMetricFamily("nodewatch_pair_tests_runs", "Runs of the remembered pair tests", labels=["result"])
    results = Counter(run.result for test in tests for run in test.runs)
    # A run that gave way to a job is not remembered: it comes again.
    for result in PairResult:
        if result is not PairResult.GAVE_WAY:
            runs.add_metric([result.value], results[result])
    yield runs
    yield GaugeMetricFamily(
        "nodewatch_pair_tests_culprits",
        "Nodes that a pair test has named and no good run has cleared",
        value=len(ledger.pair_culprits),
    )
    ended = [test.ended_at for test in tests if test.judgement is not None and test.ended_at is not None]
    yield GaugeMetricFamily(
        "nodewatch_pair_tests_last_ended_timestamp_seconds",
        "When the last pair test was judged, 0 while none was",
        value=max(ended, default=0.0),
    )
