"""kernel_oom: lines as the kernel and the drivers print them, and what each amounts to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from .kernel_lines import BEGINNINGS, ask, is_silent_on_benign, outline

KILLED = "Killed process 4711 (python3) total-vm:81234kB, anon-rss:70000kB, file-rss:0kB, shmem-rss:0kB, UID:1000"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("Memory cgroup out of memory: " + KILLED, ("job.oom", "cgroup", "info", "restart_app")),
        ("Out of memory: " + KILLED, ("host.oom", "memory", "warn", "restart_app")),
        (
            "Out of memory: Kill process 4711 (python3) score 905 or sacrifice child",
            ("host.oom", "memory", "warn", "restart_app"),
        ),
        ("Out of memory (oom_kill_allocating_task): " + KILLED, ("host.oom", "memory", "warn", "restart_app")),
        (
            "Kernel panic - not syncing: Out of memory and no killable processes...",
            ("host.oom_no_victim", "memory", "degraded", "reboot"),
        ),
    ],
)
def test_what_a_line_amounts_to(line: str, expected: tuple[str, str, str, str]) -> None:
    assert outline(ask("kernel_oom", line)) == [expected]


def test_who_was_killed_is_evidence() -> None:
    (finding,) = ask("kernel_oom", "Out of memory: Killed process 811 (slurmd) total-vm:1kB")
    assert (finding.evidence["pid"], finding.evidence["process"], finding.evidence["is_service"]) == (
        "811",
        "slurmd",
        True,
    )


def test_a_job_that_is_killed_often_is_still_no_fault_of_the_node() -> None:
    (finding,) = ask("kernel_oom", *["Memory cgroup out of memory: " + KILLED] * 500)
    assert (finding.severity.word, finding.evidence["count"]) == ("info", 500)


def test_nothing_above_a_warning_on_a_healthy_machine() -> None:
    assert is_silent_on_benign("kernel_oom")


@given(st.lists(st.text(max_size=120), max_size=8), st.sampled_from(BEGINNINGS))
def test_no_text_raises(lines: list[str], beginning: str) -> None:
    ask("kernel_oom", *lines, *[beginning + line for line in lines])
