"""host_blocked_processes: stuck programs and uncollected ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewatch.checks.host_blocked_processes import HostBlockedProcessesThresholds, host_blocked_processes
from nodewatch.model.health import Finding
from nodewatch.model.host_samples import BlockedProcess, ProcessSample


def judge(*seconds: float, zombies: int = 0) -> list[Finding]:
    blocked = tuple(BlockedProcess(pid=n, name=f"p{n}", seconds=each) for n, each in enumerate(seconds))
    sample = ProcessSample(processes=900, blocked=blocked, zombies=zombies)
    return list(host_blocked_processes(sample, HostBlockedProcessesThresholds()))


@pytest.mark.parametrize(
    ("seconds", "zombies", "expected"),
    [
        ((), 0, []),
        ((0.0, 120.0, 299.0), 20, []),
        ((300.0,), 0, ["host.processes_blocked"]),
        ((), 500, ["host.zombies"]),
        ((1e6,), 10_000, ["host.processes_blocked", "host.zombies"]),
    ],
)
def test_what_is_too_much(seconds: tuple[float, ...], zombies: int, expected: list[str]) -> None:
    found = judge(*seconds, zombies=zombies)
    assert [finding.fault for finding in found] == expected
    assert {finding.severity.word for finding in found} <= {"warn"}


def test_the_evidence_names_the_longest_first() -> None:
    (finding,) = judge(400.0, 10.0, 900.0)
    assert finding.evidence == {"count": 2, "longest_s": 900, "processes": ["p2 (2)", "p0 (0)"]}


@given(st.lists(st.floats(0, 1e9), max_size=20), st.integers(0, 10**7))
def test_no_numbers_raise(seconds: list[float], zombies: int) -> None:
    judge(*seconds, zombies=zombies)
