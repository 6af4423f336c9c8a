"""In CI a skipped test is a failure: a machine that lacks what a test needs would otherwise pass by testing nothing."""

from __future__ import annotations

import os

import pytest

_skipped: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Remember what was skipped."""
    if report.skipped and not hasattr(report, "wasxfail"):
        _skipped.append(report.nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the session over skipped tests where NODEWATCH_NO_SKIPS is set."""
    if _skipped and os.environ.get("NODEWATCH_NO_SKIPS") and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say why the session fails."""
    if _skipped and os.environ.get("NODEWATCH_NO_SKIPS"):
        terminalreporter.write_line(f"skipped tests are failures here: {', '.join(_skipped)}", red=True)
