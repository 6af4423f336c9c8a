"""Weekly windows: when they are open, and what they quieten."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewatch.model.health import Finding, Remedy, Severity
from nodewatch.policy.maintenance import is_open, parse_window, quieted


def at(day: int, hour: int, minute: int, second: int = 0) -> float:
    """A moment of the week of Monday, the 5th of January 2026; days from 1 to 7."""
    return datetime(2026, 1, 4 + day, hour, minute, second, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("text", "now", "expected"),
    [
        ("2:05:00", at(2, 4, 59, 59), False),
        ("2:05:00", at(2, 5, 0), True),
        ("2:05:00", at(2, 5, 29, 59), True),
        ("2:05:00", at(2, 5, 30), False),
        ("2:05:00", at(3, 5, 0), False),
        ("1:00:00", at(1, 0, 0), True),
        ("7:23:45", at(7, 23, 50), True),
        # Over the end of the week.
        ("7:23:45", at(1, 0, 10), True),
        ("7:23:45", at(1, 0, 20), False),
    ],
)
def test_when(text: str, now: float, expected: bool) -> None:
    window = parse_window(text, length_s=1800.0)
    assert is_open([window], now) is expected
    assert is_open([window], now + 7 * 86400) is expected
    assert is_open([], now) is False


@pytest.mark.parametrize("text", ["", "0:05:00", "8:05:00", "2:24:00", "2:05:60", "2:5:00", "tue:05:00", "2:05:00 "])
def test_what_is_no_window(text: str) -> None:
    with pytest.raises(ValueError, match="no weekly window"):
        parse_window(text, length_s=1800.0)


@given(st.integers(1, 7), st.integers(0, 23), st.integers(0, 59), st.floats(0, 4e9))
def test_it_is_open_for_its_length_each_week(day: int, hour: int, minute: int, now: float) -> None:
    window = parse_window(f"{day}:{hour:02}:{minute:02}", length_s=1800.0)
    opened = [step for step in range(0, 7 * 24 * 60, 10) if is_open([window], now + step * 60)]
    assert len(opened) == 3


def finding(fault: str, severity: Severity = Severity.DEGRADED) -> Finding:
    return Finding(fault=fault, subject="/fsx", severity=severity, remedy=Remedy.HUMAN, evidence={"a": 1})


def test_what_is_quietened() -> None:
    window = parse_window("2:05:00", length_s=1800.0)
    seen = (
        finding("filesystem.hung"),
        finding("filesystem.not_mounted", Severity.FATAL),
        finding("filesystem.hsm_released", Severity.INFO),
        finding("gpu.lost", Severity.FATAL),
    )
    assert quieted(seen, [window], at(2, 4, 0)) == seen
    hung, *others = quieted(seen, [window], at(2, 5, 10))
    assert (hung.severity, hung.remedy, hung.identity) == (Severity.INFO, Remedy.NONE, seen[0].identity)
    assert hung.evidence == {"a": 1, "in_maintenance": True, "severity": "degraded"}
    assert tuple(others) == seen[1:]
