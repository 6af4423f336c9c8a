"""Each alert asks for metrics and labels that the agent and the controller have: a slip would make one that never fires."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from nodewatch.agent.metrics import AgentCollector, Measurements
from nodewatch.controller.metrics import EngineCollector
from nodewatch.model.health import NodeState, Verdict
from nodewatch.model.ledger import Step
from nodewatch.testing import World

FILE = Path(__file__).parents[2] / "ansible/roles/observability/files/nodewatch-rules.yml"
OF_THE_SCRAPE = {"job", "instance", "node"}
"""templates/prometheus.yml.j2 gives them."""
WORDS = frozenset({"sum", "max", "min", "count", "avg", "by", "without", "on", "ignoring", "group_left", "group_right"})
WORDS |= {"and", "or", "unless", "increase", "rate", "max_over_time", "min_over_time", "time", "absent", "bool"}


def families() -> dict[str, frozenset[str]]:
    """Label names by the metric's name, as Prometheus sees it."""
    found = {"up": frozenset[str]()}
    agent = AgentCollector(lambda: Measurements(verdict=Verdict(state=NodeState.HEALTHY, since=0.0)))
    world = World(nodes=3, spares=0)
    world.run(seconds=3)
    for family in (*agent.collect(), *EngineCollector(world.engine, world.clock).collect()):
        name = family.name + ("_total" if family.type == "counter" else "")
        found[name] = frozenset(family._labelnames)
    return found


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(FILE.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


KNOWN = families()


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_an_alert_asks_for_what_there_is(rule: dict[str, Any]) -> None:
    expression = re.sub(r'"[^"]*"', '""', rule["expr"])
    asked = re.findall(r"([a-z_:][a-z0-9_:]*)\s*(?:\{([^}]*)\})?", re.sub(r"\[\w+\]|\b\d[\w.]*", "", expression))
    grouped = {
        name.strip() for text in re.findall(r"(?:by|ignoring|on)\s*\(([^)]*)\)", expression) for name in text.split(",")
    }
    names = {name for name, _ in asked if name not in WORDS | grouped | {"job", "state"}}
    assert names
    assert names <= KNOWN.keys(), "no such metric"
    labels = frozenset[str]().union(*(KNOWN[name] for name in names)) | OF_THE_SCRAPE
    for name, matchers in asked:
        matched = {part.partition("=")[0].strip(" !~") for part in matchers.split(",") if part.strip()}
        assert matched <= (KNOWN.get(name, frozenset()) | OF_THE_SCRAPE), f"{name} has no such label"
    assert grouped <= labels
    shown = set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"])))
    assert shown <= labels, "no such label to show"


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_an_alert_says_what_is_wrong_and_where_to_look(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("info", "warning", "critical")
    assert set(rule["annotations"]) == {"summary", "look"}
    assert re.fullmatch(r"\d+[smh]", rule.get("for", "1m"))


def test_words_that_alerts_compare_with_are_those_of_the_product() -> None:
    text = FILE.read_text()
    assert set(re.findall(r'state="(\w+)"', text)) <= {state.value for state in NodeState}
    assert set(re.findall(r'step="(\w+)"', text)) <= {step.value for step in Step}
    assert set(re.findall(r'outcome="(\w+)"', text)) <= {"done", "failed"}
    assert set(re.findall(r'job="([\w-]+)"', text)) <= {"nodewatch-agent", "nodewatch-controller"}


def test_a_slip_in_a_name_is_found() -> None:
    rule = {"alert": "X", "expr": "nodewatch_spare == 0", "annotations": {}}
    with pytest.raises(AssertionError, match="no such metric"):
        test_an_alert_asks_for_what_there_is(rule)
    rule = {"alert": "X", "expr": 'nodewatch_verdict{status="failed"} == 1', "annotations": {}}
    with pytest.raises(AssertionError, match="no such label"):
        test_an_alert_asks_for_what_there_is(rule)
