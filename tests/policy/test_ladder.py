"""The ladder: where a repair starts, what comes after a rung, and what was tried before."""

from __future__ import annotations

import pytest

from nodewatch.model.health import Finding, Remedy, Severity
from nodewatch.model.ledger import Case, Rung, Step
from nodewatch.policy.ladder import first_rung, opening_rung, rung_after
from nodewatch.policy.rules import Rules

NOW = 1_000_000.0


def finding(remedy: Remedy, severity: Severity = Severity.FATAL, fault: str = "gpu.xid.48") -> Finding:
    return Finding(fault=fault, subject="GPU-0", severity=severity, remedy=remedy)


@pytest.mark.parametrize(
    ("remedy", "rung"),
    [
        (Remedy.NONE, Rung.DRAIN),
        (Remedy.RESTART_APP, Rung.DRAIN),
        (Remedy.RESTART_SERVICE, Rung.DRAIN),
        (Remedy.RESET_GPU, Rung.RESET_GPU),
        (Remedy.REBOOT, Rung.REBOOT),
        (Remedy.REPLACE, Rung.REPLACE),
        (Remedy.HUMAN, Rung.HUMAN),
    ],
)
@pytest.mark.parametrize("severity", Severity)
def test_the_first_rung(remedy: Remedy, severity: Severity, rung: Rung) -> None:
    expected = rung if severity >= Severity.DEGRADED else Rung.OBSERVE
    assert first_rung(finding(remedy, severity), Rules()) is expected


@pytest.mark.parametrize("word", [rung.word for rung in Rung])
def test_the_sites_word_goes_before_the_findings_remedy(word: str) -> None:
    rules = Rules(first_rung={"gpu.xid.48": word})
    assert first_rung(finding(Remedy.HUMAN), rules) is max(Rung[word.upper()], Rung.DRAIN)
    assert first_rung(finding(Remedy.REBOOT, fault="gpu.other"), rules) is Rung.REBOOT
    assert first_rung(finding(Remedy.REBOOT, Severity.WARN), rules) is Rung.OBSERVE


@pytest.mark.parametrize("fault", ["gpu.lost", "gpu.xid.79", "node.lost"])
def test_a_reboot_does_not_bring_back_a_gpu_that_fell_off(fault: str) -> None:
    assert first_rung(finding(Remedy.REBOOT, fault=fault), Rules()) is Rung.REPLACE


@pytest.mark.parametrize(
    ("rung", "after"),
    [
        (Rung.OBSERVE, Rung.DRAIN),
        (Rung.DRAIN, Rung.REBOOT),
        (Rung.RESET_GPU, Rung.REBOOT),
        (Rung.REBOOT, Rung.REPLACE),
        (Rung.REPLACE, Rung.HUMAN),
        (Rung.HUMAN, Rung.HUMAN),
    ],
)
def test_the_next_rung(rung: Rung, after: Rung) -> None:
    assert rung_after(rung) is after


def closed(*tried: Rung, node: str = "n1", family: str = "gpu", at: float = NOW - 60, step: Step = Step.CLOSED) -> Case:
    return Case(
        case_id=f"{node}.{family}.{at:.0f}",
        node=node,
        family=family,
        fault=f"{family}.x",
        subject="s",
        severity=Severity.FATAL,
        rung=tried[-1] if tried else Rung.OBSERVE,
        step=step,
        opened_at=at - 60,
        step_at=at,
        tried=tried,
    )


@pytest.mark.parametrize(
    ("history", "rung"),
    [
        ([], Rung.REBOOT),
        ([closed(Rung.REBOOT)], Rung.REPLACE),
        ([closed(Rung.REBOOT, Rung.REPLACE)], Rung.REPLACE),
        ([closed(Rung.REPLACE)], Rung.REBOOT),
        ([closed(Rung.DRAIN)], Rung.REBOOT),
        ([closed(Rung.REBOOT, node="n2")], Rung.REBOOT),
        ([closed(Rung.REBOOT, family="filesystem")], Rung.REBOOT),
        ([closed(Rung.REBOOT, at=NOW - 86400)], Rung.REPLACE),
        ([closed(Rung.REBOOT, at=NOW - 86401)], Rung.REBOOT),
        ([closed(Rung.REBOOT, step=Step.WATCHING)], Rung.REBOOT),
    ],
)
def test_a_relapse_opens_one_rung_higher(history: list[Case], rung: Rung) -> None:
    assert opening_rung(finding(Remedy.REBOOT), "n1", history, Rules(), NOW) is rung


def test_no_relapse_leads_past_a_replacement() -> None:
    history = [closed(Rung.DRAIN, Rung.REBOOT, Rung.REPLACE), closed(Rung.REBOOT)]
    assert opening_rung(finding(Remedy.NONE), "n1", history, Rules(), NOW) is Rung.REPLACE
    assert opening_rung(finding(Remedy.HUMAN), "n1", history, Rules(), NOW) is Rung.HUMAN
