"""kernel_pcie_aer: lines as the kernel and the drivers print them, and what each amounts to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewatch.checks.kernel_pcie_aer import KernelPcieAerThresholds

from .kernel_lines import BEGINNINGS, ask, is_silent_on_benign, outline

BUS = "nvidia 0000:53:00.0: PCIe Bus Error: severity={severity}, type=Transaction Layer, (Requester ID)"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (BUS.format(severity="Corrected"), ("host.pcie_corrected", "0000:53:00.0", "info", "none")),
        (BUS.format(severity="Correctable"), ("host.pcie_corrected", "0000:53:00.0", "info", "none")),
        (BUS.format(severity="Uncorrected (Non-Fatal)"), ("host.pcie_nonfatal", "0000:53:00.0", "warn", "none")),
        (BUS.format(severity="Uncorrectable (Non-Fatal)"), ("host.pcie_nonfatal", "0000:53:00.0", "warn", "none")),
        (BUS.format(severity="Uncorrected (Fatal)"), ("host.pcie_fatal", "0000:53:00.0", "degraded", "reboot")),
        (BUS.format(severity="Uncorrectable (Fatal)"), ("host.pcie_fatal", "0000:53:00.0", "degraded", "reboot")),
        (
            "pcieport 0000:00:1d.0: AER: device recovery failed",
            ("host.pcie_not_recovered", "0000:00:1d.0", "degraded", "reboot"),
        ),
        (
            "pcieport 0000:00:1d.0: DPC: unmasked uncorrectable error detected",
            ("host.pcie_fatal", "0000:00:1d.0", "degraded", "reboot"),
        ),
    ],
)
def test_what_a_line_amounts_to(line: str, expected: tuple[str, str, str, str]) -> None:
    assert outline(ask("kernel_pcie_aer", line)) == [expected]


def test_a_device_that_recovered_says_nothing() -> None:
    assert ask("kernel_pcie_aer", "pcieport 0000:00:1d.0: AER: device recovery successful") == []


def test_a_high_rate_of_corrected_errors_is_a_warning() -> None:
    lines = [BUS.format(severity="Corrected")] * 80
    (fast,) = ask("kernel_pcie_aer", *lines, step_s=0.5)
    assert (fast.severity.word, fast.evidence["errors_per_minute"]) == ("warn", 80)
    (slow,) = ask("kernel_pcie_aer", *lines, step_s=10.0)
    assert slow.severity.word == "info"
    changed = KernelPcieAerThresholds(corrected_per_minute=5)
    assert ask("kernel_pcie_aer", *lines, step_s=10.0, thresholds=changed)[0].severity.word == "warn"


def test_nothing_above_a_warning_on_a_healthy_machine() -> None:
    assert is_silent_on_benign("kernel_pcie_aer")


@given(st.lists(st.text(max_size=120), max_size=8), st.sampled_from(BEGINNINGS))
def test_no_text_raises(lines: list[str], beginning: str) -> None:
    ask("kernel_pcie_aer", *lines, *[beginning + line for line in lines])
