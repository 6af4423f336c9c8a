"""What Prometheus reads on the agent's metrics port. Values are taken from the agent when they are asked for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from nodewatch.model.health import NodeState, Verdict

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurements:
    """The agent's figures at one moment; counters count since its start."""

    verdict: Verdict
    check_seconds: Mapping[str, float] = field(default_factory=dict)
    """How long each check took the last time."""
    check_runs: Mapping[str, int] = field(default_factory=dict)
    check_unknowns: Mapping[str, int] = field(default_factory=dict)
    hook_answers: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """By (hook, allowed | denied | uncertain)."""
    hook_refused: int = 0
    hook_errors: int = 0
    hook_misses: int = 0
    spool_depth: int = 0
    spool_dropped: int = 0
    spool_on_disk: bool = True
    kmsg_garbled: int = 0
    kmsg_overruns: int = 0
    messages_sent: int = 0
    controller_failures: int = 0
    """Tries in a row that the controller did not answer."""
    nvml_restarts: int = 0


class AgentCollector:
    """Turns measurements into metric families at each scrape."""

    def __init__(self, read: Callable[[], Measurements]) -> None:
        """`read` is called from the thread of the metrics server."""
        self._read = read

    def collect(self) -> Iterator[Metric]:
        """All families of the agent."""
        now = self._read()
        state = GaugeMetricFamily("nodewatch_verdict", "1 for the state that the node is in.", labels=["state"])
        for member in NodeState:
            state.add_metric([member.value], float(member is now.verdict.state))
        yield state
        yield from self._findings(now.verdict)
        seconds = GaugeMetricFamily("nodewatch_check_seconds", "Duration of the last run.", labels=["check"])
        for check, value in sorted(now.check_seconds.items()):
            seconds.add_metric([check], value)
        yield seconds
        yield _counter("nodewatch_check_runs", "Runs of a check.", "check", now.check_runs)
        yield _counter("nodewatch_check_unknowns", "Runs that could not tell.", "check", now.check_unknowns)
        answers = CounterMetricFamily("nodewatch_hook_answers", "Answers to hooks.", labels=["ask", "answer"])
        for (ask, answer), count in sorted(now.hook_answers.items()):
            answers.add_metric([ask, answer], count)
        yield answers
        yield CounterMetricFamily("nodewatch_hook_refused", "Callers that may not ask.", value=now.hook_refused)
        yield CounterMetricFamily("nodewatch_hook_errors", "Requests that were none.", value=now.hook_errors)
        yield CounterMetricFamily("nodewatch_hook_misses", "Hooks that got no answer.", value=now.hook_misses)
        yield GaugeMetricFamily("nodewatch_spool_events", "Events not accepted yet.", value=now.spool_depth)
        yield CounterMetricFamily("nodewatch_spool_dropped", "Events lost to a full spool.", value=now.spool_dropped)
        yield GaugeMetricFamily("nodewatch_spool_on_disk", "0: in memory only.", value=float(now.spool_on_disk))
        yield CounterMetricFamily("nodewatch_kmsg_garbled", "Lines that are no record.", value=now.kmsg_garbled)
        yield CounterMetricFamily("nodewatch_kmsg_overruns", "Records lost to the ring.", value=now.kmsg_overruns)
        yield CounterMetricFamily("nodewatch_messages_sent", "Messages answered.", value=now.messages_sent)
        yield GaugeMetricFamily(
            "nodewatch_controller_failures", "Tries in a row without an answer.", value=now.controller_failures
        )
        yield CounterMetricFamily("nodewatch_nvml_starts", "Starts of the NVML process.", value=now.nvml_restarts)

    @staticmethod
    def _findings(verdict: Verdict) -> Iterator[Metric]:
        findings = GaugeMetricFamily("nodewatch_findings", "Findings that stand.", labels=["fault", "severity"])
        counts: dict[tuple[str, str], int] = {}
        for standing in verdict.findings:
            key = (standing.finding.fault, standing.finding.severity.word)
            counts[key] = counts.get(key, 0) + 1
        for (fault, severity), count in sorted(counts.items()):
            findings.add_metric([fault, severity], count)
        yield findings
        unknown = GaugeMetricFamily("nodewatch_check_unknown", "1: the check cannot tell now.", labels=["check"])
        for check, _ in verdict.unknown:
            unknown.add_metric([check], 1)
        yield unknown


def _counter(name: str, text: str, label: str, values: Mapping[str, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=[label])
    for key, value in sorted(values.items()):
        family.add_metric([key], value)
    return family


def serve(read: Callable[[], Measurements], *, address: str, port: int) -> Callable[[], None]:
    """Serve metrics from a thread; the value stops it. A port that is taken costs the metrics, not the agent."""
    registry = CollectorRegistry()
    registry.register(AgentCollector(read))
    ProcessCollector(registry=registry)
    try:
        server, _thread = start_http_server(port, addr=address, registry=registry)
    except OSError as error:
        _LOG.error("no metrics: %s:%d cannot be used (%s); set metrics_port in agent.toml", address, port, error)
        return lambda: None
    return server.server_close
