"""kernel_sxid: lines as the kernel and the drivers print them, and what each amounts to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewatch.checks.kernel_sxid import KernelSxidThresholds

from .kernel_lines import BEGINNINGS, ask, is_silent_on_benign, outline

FATAL = "nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 20034, Fatal, Link 30 LTSSM Fault Up"


@pytest.mark.parametrize(
    ("line", "fault", "subject", "severity", "remedy"),
    [
        (FATAL, "gpu.sxid.20034", "0000:c1:00.0", "fatal", "reboot"),
        (
            "nvidia-nvswitch0: SXid (PCI:0000:c3:00.0): 24007, Fatal, Link 30 sourcetrack timeout error",
            "gpu.sxid.24007",
            "0000:c3:00.0",
            "fatal",
            "reboot",
        ),
        (
            "nvidia-nvswitch3: SXid (PCI:0000:05:00.0): 12028, Non-fatal, Link 32 egress non-posted PRIV error (First)",
            "gpu.sxid.12028",
            "0000:05:00.0",
            "warn",
            "none",
        ),
        (
            "nvidia-nvswitch3: SXid (PCI:0000:05:00.0): 10003, Host_unhandled_interrupt",
            "gpu.sxid.10003",
            "0000:05:00.0",
            "warn",
            "human",
        ),
    ],
)
def test_what_a_line_amounts_to(line: str, fault: str, subject: str, severity: str, remedy: str) -> None:
    assert outline(ask("kernel_sxid", line)) == [(fault, subject, severity, remedy)]


def test_the_lines_of_one_event_are_one_finding() -> None:
    (finding,) = ask(
        "kernel_sxid",
        FATAL,
        "nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 20034, Severity 1 Engine instance 30 Sub-engine instance 00",
        "nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 20034, Data {0x50610002, 0x10100030, 0x00000000}",
        FATAL.replace("Link 30", "Link 31"),
    )
    assert (finding.evidence["count"], finding.evidence["links"]) == (2, [30, 31])


@pytest.mark.parametrize(
    ("text", "severity", "remedy"),
    [
        ("Severity 1 Engine instance 30 Sub-engine instance 00", "fatal", "reboot"),
        ("Severity 0 Engine instance 30 Sub-engine instance 00", "warn", "human"),
        ("Data {0x50610002, 0x10100030}", "warn", "human"),
    ],
)
def test_details_without_the_line_that_they_belong_to(text: str, severity: str, remedy: str) -> None:
    line = f"nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 20034, {text}"
    assert outline(ask("kernel_sxid", line)) == [("gpu.sxid.20034", "0000:c1:00.0", severity, remedy)]
    assert ask("kernel_sxid", FATAL, line, recent=1) == []


@pytest.mark.parametrize(
    "line",
    [
        "nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): garbled, Fatal",
        "nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 1234567, Fatal",
        "python[1]: SXid 20034",
    ],
)
def test_lines_that_are_no_sxid(line: str) -> None:
    assert ask("kernel_sxid", line) == []


def test_a_site_leaves_numbers_out() -> None:
    assert ask("kernel_sxid", FATAL, thresholds=KernelSxidThresholds(ignored=(20034,))) == []


def test_nothing_above_a_warning_on_a_healthy_machine() -> None:
    assert is_silent_on_benign("kernel_sxid")


@given(st.lists(st.text(max_size=120), max_size=8), st.sampled_from(BEGINNINGS))
def test_no_text_raises(lines: list[str], beginning: str) -> None:
    ask("kernel_sxid", *lines, *[beginning + line for line in lines])
