"""kernel_hung_task: lines as the kernel and the drivers print them, and what each amounts to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from .kernel_lines import BEGINNINGS, ask, is_silent_on_benign, outline


@pytest.mark.parametrize(
    ("line", "subject"),
    [
        ("INFO: task ll_ost_io01_002:21187 blocked for more than 120 seconds.", "ll_ost_io01_002"),
        ("INFO: task kworker/u256:3:1187 blocked for more than 122 seconds.", "kworker/u256:3"),
        ("INFO: task jbd2/nvme0n1p1-:412 blocked in I/O wait for more than 120 seconds.", "jbd2/nvme0n1p1-"),
    ],
)
def test_what_a_line_amounts_to(line: str, subject: str) -> None:
    assert outline(ask("kernel_hung_task", line)) == [("host.hung_task", subject, "warn", "none")]


@pytest.mark.parametrize(
    "line",
    [
        "INFO: task x",
        '"echo 0 > /proc/sys/kernel/hung_task_timeout_secs" disables this message.',
        "INFO: rcu_sched self-detected",
    ],
)
def test_lines_that_are_none(line: str) -> None:
    assert ask("kernel_hung_task", line) == []


def test_nothing_above_a_warning_on_a_healthy_machine() -> None:
    assert is_silent_on_benign("kernel_hung_task")


@given(st.lists(st.text(max_size=120), max_size=8), st.sampled_from(BEGINNINGS))
def test_no_text_raises(lines: list[str], beginning: str) -> None:
    ask("kernel_hung_task", *lines, *[beginning + line for line in lines])
