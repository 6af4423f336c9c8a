"""kernel_nvidia: lines as the driver prints them, and what each amounts to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from .kernel_lines import ask, is_silent_on_benign, outline


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "NVRM: GPU 0000:05:00.0: RmInitAdapter failed! (0x26:0xffff:1290)",
            ("gpu.init_failed", "0000:05:00", "degraded", "reboot"),
        ),
        ("NVRM: RmInitAdapter failed! (0x31:0xffff:839)", ("gpu.init_failed", "gpu", "degraded", "reboot")),
        (
            "NVRM: API mismatch: the client has the version 550.54.15, but",
            ("gpu.api_mismatch", "driver", "warn", "human"),
        ),
        (
            "NVRM: API mismatch: this kernel module has the version 550.54.15",
            ("gpu.api_mismatch", "driver", "warn", "human"),
        ),
        (
            "NVRM: nvGpuOpsReportFatalError: uvm encountered global fatal error 0x60, requiring os reboot to recover.",
            ("gpu.uvm_fatal", "nvidia-uvm", "fatal", "reboot"),
        ),
    ],
)
def test_what_a_line_amounts_to(line: str, expected: tuple[str, str, str, str]) -> None:
    assert outline(ask("kernel_nvidia", line)) == [expected]


def test_what_is_tried_again_and_again_is_one_finding() -> None:
    (finding,) = ask("kernel_nvidia", *["NVRM: GPU 0000:05:00.0: RmInitAdapter failed! (0x26:0xffff:1290)"] * 9)
    assert (finding.evidence["count"], finding.evidence["code"]) == (9, "(0x26:0xffff:1290)")


def test_nothing_above_a_warning_on_a_healthy_machine() -> None:
    assert is_silent_on_benign("kernel_nvidia")


@given(st.text(max_size=80))
def test_no_text_raises(text: str) -> None:
    ask("kernel_nvidia", "NVRM: " + text, "NVRM: GPU 0000:05:00.0: RmInitAdapter failed! (" + text)
