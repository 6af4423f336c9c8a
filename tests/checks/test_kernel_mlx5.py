"""kernel_mlx5: lines as the driver prints them, and what each amounts to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from .kernel_lines import ask, is_silent_on_benign, outline

CARD = "0000:5e:00.0"


@pytest.mark.parametrize(
    ("text", "fault", "severity", "remedy"),
    [
        ("poll_health:702:(pid 0): Fatal error 1 detected", "health", "degraded", "reboot"),
        (
            "poll_health:1151:(pid 0): device's health compromised - reached miss count",
            "health",
            "degraded",
            "reboot",
        ),
        ("print_health_info:424:(pid 0): synd 0x8: unrecoverable hardware error", "health", "degraded", "reboot"),
        ("Health issue observed, firmware internal error, severity(3) ERROR:", "health", "degraded", "reboot"),
        (
            "wait_func:1195:(pid 19670): ENABLE_HCA(0x104) timeout. Will cause a leak of a command resource",
            "no_answer",
            "degraded",
            "reboot",
        ),
        (
            "probe_one:1765:(pid 9): mlx5_init_one failed with error code -110",
            "not_started",
            "degraded",
            "reboot",
        ),
        (
            "Port module event[error]: module 0, Cable error, High Temperature",
            "module",
            "warn",
            "human",
        ),
        (
            "mlx5_pcie_event:299:(pid 2): Detected insufficient power on the PCIe slot (27W).",
            "slot_power",
            "info",
            "none",
        ),
    ],
)
def test_what_a_line_amounts_to(text: str, fault: str, severity: str, remedy: str) -> None:
    assert outline(ask("kernel_mlx5", f"mlx5_core {CARD}: {text}")) == [
        (f"network.mlx5_{fault}", CARD, severity, remedy)
    ]


def test_a_stuck_queue_is_named_by_card_or_interface() -> None:
    found = ask(
        "kernel_mlx5",
        f"mlx5_core {CARD} eth2: TX timeout detected",
        "NETDEV WATCHDOG: eth3 (mlx5_core): transmit queue 7 timed out",
        "mlx5_core 0000:9e:00.0 eth4: NETDEV WATCHDOG: CPU: 5: transmit queue 0 timed out 5032 ms",
    )
    assert [(finding.subject, finding.severity.word) for finding in found] == [
        (CARD, "warn"),
        ("eth3", "warn"),
        ("0000:9e:00.0", "warn"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "firmware version: 28.39.2048",
        "252.048 Gb/s available PCIe bandwidth (16.0 GT/s PCIe x16 link)",
        "Port module event: module 0, Cable plugged",
        "Port module event: module 0, Cable unplugged",
        "mlx5_cmd_out_err:808:(pid 1): ACCESS_REG(0x805) op_mod(0x1) failed, status bad parameter(0x3), err(-22)",
        "Health issue observed, High temperature, severity(4) WARNING:",
        "synd 0x0: ",
        "Rate limit: 127 rates are supported, range: 0Mbps to 97656Mbps",
    ],
)
def test_lines_that_are_none(text: str) -> None:
    assert ask("kernel_mlx5", f"mlx5_core {CARD}: {text}", f"mlx5_core {CARD} eth2: Link down") == []


def test_nothing_above_a_warning_on_a_healthy_machine() -> None:
    assert is_silent_on_benign("kernel_mlx5")


@given(st.text(max_size=120))
def test_no_text_raises(text: str) -> None:
    ask("kernel_mlx5", f"mlx5_core {CARD}: " + text, "mlx5_core " + text)
