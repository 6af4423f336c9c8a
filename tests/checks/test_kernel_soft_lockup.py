"""kernel_soft_lockup: lines as the kernel and the drivers print them, and what each amounts to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewatch.checks.kernel_soft_lockup import KernelSoftLockupThresholds

from .kernel_lines import BEGINNINGS, ask, is_silent_on_benign, outline


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "watchdog: BUG: soft lockup - CPU#3 stuck for 22s! [python3:4711]",
            ("host.soft_lockup", "CPU#3", "warn", "none"),
        ),
        (
            "watchdog: BUG: soft lockup - CPU#127 stuck for 67s! [kworker/u256:3:1187]",
            ("host.soft_lockup", "CPU#127", "degraded", "reboot"),
        ),
        ("BUG: soft lockup - CPU#0 stuck for 22s! [swapper/0:0]", ("host.soft_lockup", "CPU#0", "warn", "none")),
        ("NMI watchdog: Watchdog detected hard LOCKUP on cpu 17", ("host.hard_lockup", "17", "degraded", "reboot")),
        ("rcu: INFO: rcu_preempt self-detected stall on CPU", ("host.rcu_stall", "kernel", "warn", "none")),
        ("rcu: INFO: rcu_sched detected stalls on CPUs/tasks:", ("host.rcu_stall", "kernel", "warn", "none")),
        ("INFO: rcu_sched self-detected stall on CPU { 3}", ("host.rcu_stall", "kernel", "warn", "none")),
    ],
)
def test_what_a_line_amounts_to(line: str, expected: tuple[str, str, str, str]) -> None:
    assert outline(ask("kernel_soft_lockup", line)) == [expected]


def test_the_longest_of_several_decides() -> None:
    lines = [f"watchdog: BUG: soft lockup - CPU#3 stuck for {seconds}s! [python3:1]" for seconds in (22, 45, 67)]
    (finding,) = ask("kernel_soft_lockup", *lines)
    assert (finding.severity.word, finding.evidence["longest_s"], finding.evidence["count"]) == ("degraded", 67, 3)
    (milder,) = ask("kernel_soft_lockup", *lines, thresholds=KernelSoftLockupThresholds(stuck_s=100))
    assert milder.severity.word == "warn"


def test_a_benign_word() -> None:
    assert ask("kernel_soft_lockup", "NMI watchdog: Enabled. Permanently consumes one hw-PMU counter.") == []


def test_nothing_above_a_warning_on_a_healthy_machine() -> None:
    assert is_silent_on_benign("kernel_soft_lockup")


@given(st.lists(st.text(max_size=120), max_size=8), st.sampled_from(BEGINNINGS))
def test_no_text_raises(lines: list[str], beginning: str) -> None:
    ask("kernel_soft_lockup", *lines, *[beginning + line for line in lines])
