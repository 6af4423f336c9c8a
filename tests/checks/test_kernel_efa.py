"""kernel_efa: lines as the kernel and the drivers print them, and what each amounts to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from .kernel_lines import BEGINNINGS, ask, is_silent_on_benign, outline

NO_ANSWER = (
    "The device didn't send any completion for admin cmd CREATE_QP(1) status 0"
    " (ctx 0x00000000a1b2c3d4, sq producer: 17, sq consumer: 16, cq consumer: 16)"
)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "efa 0000:a0:19.0 rdmap160s25: " + NO_ANSWER,
            ("efa.no_answer", "0000:a0:19.0", "degraded", "reboot"),
        ),
        ("efa 0000:a0:19.0 efa_3: " + NO_ANSWER, ("efa.no_answer", "0000:a0:19.0", "degraded", "reboot")),
        ("infiniband efa_3: " + NO_ANSWER, ("efa.no_answer", "efa_3", "degraded", "reboot")),
        ("infiniband rdmap0s6: Admin queue is closed", ("efa.no_answer", "rdmap0s6", "degraded", "reboot")),
        (
            "efa 0000:a0:19.0 rdmap160s25: Wait for completion (polling) timeout",
            ("efa.no_answer", "0000:a0:19.0", "degraded", "reboot"),
        ),
        (
            "efa 0000:a0:19.0: Device isn't ready, can't reset device",
            ("efa.not_started", "0000:a0:19.0", "degraded", "reboot"),
        ),
        (
            "efa 0000:a0:19.0: Reset indication didn't turn off",
            ("efa.not_started", "0000:a0:19.0", "degraded", "reboot"),
        ),
        ("efa: probe of 0000:a0:19.0 failed with error -62", ("efa.not_started", "efa", "degraded", "reboot")),
        (
            "efa 0000:a0:19.0 rdmap160s25: Failed to process command CREATE_QP (opcode 1) comp_status 3 err -12",
            ("efa.command_failed", "0000:a0:19.0", "warn", "none"),
        ),
        (
            "ena 0000:00:05.0 ens5: Keep alive watchdog timeout.",
            ("network.ena_reset", "0000:00:05.0", "warn", "none"),
        ),
    ],
)
def test_what_a_line_amounts_to(line: str, expected: tuple[str, str, str, str]) -> None:
    assert outline(ask("kernel_efa", line)) == [expected]


@pytest.mark.parametrize(
    "line",
    [
        "efa 0000:a0:19.0: Setup irq:53 name:efa-mgmnt@pci:0000:a0:19.0",
        "infiniband rdmap160s25: IB device registered",
        "infiniband mlx5_0: Failed to create something, default",
        "ena 0000:00:05.0 eth0: Wait for completion (polling) timeout",
        "ena 0000:00:05.0: Reset indication didn't turn on",
        "python[1]: efa provider not found",
    ],
)
def test_lines_that_are_none(line: str) -> None:
    assert ask("kernel_efa", line) == []


def test_nothing_above_a_warning_on_a_healthy_machine() -> None:
    assert is_silent_on_benign("kernel_efa")


@given(st.lists(st.text(max_size=120), max_size=8), st.sampled_from(BEGINNINGS))
def test_no_text_raises(lines: list[str], beginning: str) -> None:
    ask("kernel_efa", *lines, *[beginning + line for line in lines])
