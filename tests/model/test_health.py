"""Findings and verdicts through JSON and back."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewatch.model.health import (
    CheckResult,
    CheckStatus,
    Finding,
    NodeState,
    Remedy,
    Severity,
    StandingFinding,
    Verdict,
    remedy_of,
    severity_of,
    state_of,
)

times = st.floats(0, 4e9)
evidence = st.dictionaries(st.text(), st.one_of(st.none(), st.booleans(), st.integers(), st.text(), times), max_size=3)
findings = st.builds(
    Finding,
    fault=st.text(min_size=1),
    subject=st.text(),
    severity=st.sampled_from(Severity),
    remedy=st.sampled_from(Remedy),
    evidence=evidence,
)
standing = st.builds(StandingFinding, finding=findings, first_at=times, last_at=times)
verdicts = st.builds(
    Verdict,
    state=st.sampled_from(NodeState),
    since=times,
    findings=st.lists(standing, max_size=3).map(tuple),
    unknown=st.lists(st.tuples(st.text(), st.text()), max_size=3).map(tuple),
)


@given(findings)
def test_a_finding_comes_back(finding: Finding) -> None:
    assert Finding.from_json(json.loads(json.dumps(finding.to_json()))) == finding


@given(verdicts)
def test_a_verdict_comes_back(verdict: Verdict) -> None:
    assert Verdict.from_json(json.loads(json.dumps(verdict.to_json()))) == verdict


@given(verdicts)
def test_the_worst_finding_does_not_depend_on_their_order(verdict: Verdict) -> None:
    worst = verdict.worst
    assert (worst is None) == (not verdict.findings)
    turned = Verdict(state=verdict.state, since=verdict.since, findings=verdict.findings[::-1]).worst
    if worst is not None and turned is not None:
        assert worst.finding.severity == max(s.finding.severity for s in verdict.findings)
        assert turned.finding.identity == worst.finding.identity or turned.first_at == worst.first_at


@pytest.mark.parametrize("severity", Severity)
def test_severity_words(severity: Severity) -> None:
    assert severity_of(severity.word) is severity


@pytest.mark.parametrize("remedy", Remedy)
def test_remedy_words(remedy: Remedy) -> None:
    assert remedy_of(remedy.word) is remedy


@pytest.mark.parametrize("word", ["", "bad", "FATAL ", "0"])
def test_another_word_is_refused_with_the_choices(word: str) -> None:
    with pytest.raises(ValueError, match="use one of info, warn, degraded, fatal"):
        severity_of(word)
    with pytest.raises(ValueError, match="use one of none, restart_app"):
        remedy_of(word)


def test_a_result_as_json() -> None:
    result = CheckResult(check="gpu_lost", status=CheckStatus.UNKNOWN, error="no NVML", seconds=0.2)
    assert result.to_json() == {"check": "gpu_lost", "status": "unknown", "findings": [], "error": "no NVML"}


@pytest.mark.parametrize(
    ("severities", "has_unknown", "state"),
    [
        ((), False, NodeState.HEALTHY),
        ((Severity.INFO,), False, NodeState.HEALTHY),
        ((Severity.WARN, Severity.INFO), False, NodeState.SUSPECT),
        ((Severity.DEGRADED, Severity.WARN), False, NodeState.DEGRADED),
        ((Severity.DEGRADED, Severity.FATAL), False, NodeState.FAILED),
        ((), True, NodeState.UNKNOWN),
        ((Severity.WARN,), True, NodeState.UNKNOWN),
        ((Severity.DEGRADED,), True, NodeState.DEGRADED),
        ((Severity.FATAL,), True, NodeState.FAILED),
    ],
)
def test_state(severities: tuple[Severity, ...], has_unknown: bool, state: NodeState) -> None:
    found = tuple(
        StandingFinding(
            finding=Finding(fault="a.b", subject="s", severity=severity, remedy=Remedy.NONE), first_at=0, last_at=0
        )
        for severity in severities
    )
    assert state_of(found, (("check", "why"),) if has_unknown else ()) is state
