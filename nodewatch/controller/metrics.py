"""The controller's Prometheus metrics, read from the engine when asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from nodewatch.controller.engine import Engine
from nodewatch.model.health import NodeState


class EngineCollector:
    """Reads frozen values only, so a scrape never waits for a tick."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

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
