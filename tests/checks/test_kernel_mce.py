"""kernel_mce: lines as the kernel and the drivers print them, and what each amounts to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewatch.checks.kernel_mce import KernelMceThresholds

from .kernel_lines import BEGINNINGS, ask, is_silent_on_benign, outline

CE = "EDAC MC0: {n} CE memory read error on CPU_SrcID#0_MC#0_Chan#0_DIMM#0 (channel:0 slot:0 page:0x1 offset:0x0 grain:32)"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (CE.format(n=1), ("host.memory_corrected", "MC0", "info", "none")),
        (CE.format(n=12), ("host.memory_corrected", "MC0", "warn", "none")),
        (
            "EDAC MC3: 1 UE memory read error on CPU_SrcID#1_MC#1_Chan#0_DIMM#0 (channel:0 slot:0 page:0x1)",
            ("host.memory_uncorrected", "MC3", "degraded", "reboot"),
        ),
        (
            "mce: [Hardware Error]: CPU 4: Machine Check: 0 Bank 7: 8c00004000010091",
            ("host.machine_check", "cpu", "info", "none"),
        ),
        (
            "mce: [Hardware Error]: CPU 4: Machine Check Exception: 5 Bank 4: be00000000800400",
            ("host.machine_check", "cpu", "degraded", "reboot"),
        ),
        (
            "[Hardware Error]: Uncorrected, software restartable error.",
            ("host.machine_check_uncorrected", "cpu", "degraded", "reboot"),
        ),
        (
            "Memory failure: 0x7f1a2: recovery action for dirty LRU page: Recovered",
            ("host.memory_poisoned", "memory", "degraded", "reboot"),
        ),
        (
            "MCE: Killing python3:4711 due to hardware memory corruption fault at 7f0012345000",
            ("host.memory_poisoned", "memory", "degraded", "reboot"),
        ),
        (
            "Kernel panic - not syncing: Fatal local machine check",
            ("host.machine_check_fatal", "cpu", "fatal", "reboot"),
        ),
        ("{1}[Hardware Error]: event severity: corrected", ("host.firmware_error", "firmware", "info", "none")),
        ("{1}[Hardware Error]: event severity: recoverable", ("host.firmware_error", "firmware", "warn", "none")),
        ("{1}[Hardware Error]: event severity: fatal", ("host.firmware_error", "firmware", "degraded", "reboot")),
    ],
)
def test_what_a_line_amounts_to(line: str, expected: tuple[str, str, str, str]) -> None:
    assert outline(ask("kernel_mce", line)) == [expected]


def test_a_rate_counts_what_came_before_the_sample() -> None:
    slow = ask("kernel_mce", *[CE.format(n=1)] * 20, step_s=30.0)
    assert [(f.severity.word, f.evidence["errors_per_minute"]) for f in slow] == [("info", 3)]
    (fast,) = ask("kernel_mce", *[CE.format(n=1)] * 12, step_s=1.0, recent=11)
    assert (fast.severity.word, fast.evidence["errors"]) == ("warn", 12)


def test_records_of_the_boot_before_are_no_veto() -> None:
    (finding,) = ask("kernel_mce", "BERT: Error records from previous boot:", "[Hardware Error]: event severity: fatal")
    assert (finding.severity.word, finding.evidence["is_of_previous_boot"]) == ("warn", True)


@pytest.mark.parametrize(("step_s", "expected"), [(1.0, ("warn", "none")), (100.0, ("degraded", "reboot"))])
def test_what_the_banks_hold_at_the_start_is_of_the_boot_before(step_s: float, expected: tuple[str, str]) -> None:
    line = "mce: [Hardware Error]: CPU 2: Machine Check: 0 Bank 5: bea0000000000108"
    (finding,) = ask("kernel_mce", "Linux version 6.1.0", line, step_s=step_s)
    assert (finding.severity.word, finding.remedy.word) == expected


def test_a_site_changes_the_rate() -> None:
    lines = [CE.format(n=1)] * 3
    (finding,) = ask("kernel_mce", *lines, thresholds=KernelMceThresholds(corrected_per_minute=3))
    assert finding.severity.word == "warn"


def test_nothing_above_a_warning_on_a_healthy_machine() -> None:
    assert is_silent_on_benign("kernel_mce")


@given(st.lists(st.text(max_size=120), max_size=8), st.sampled_from(BEGINNINGS))
def test_no_text_raises(lines: list[str], beginning: str) -> None:
    ask("kernel_mce", *lines, *[beginning + line for line in lines])
