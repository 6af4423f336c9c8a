"""The file systems' maintenance windows in agent.toml."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from nodewatch.checks._api import load_checks
from nodewatch.config.agent import AgentConfig, check_settings
from nodewatch.model.health import Severity
from nodewatch.model.samples import MountProbe, MountSample

HUNG = MountSample(mounts=(MountProbe(path="/fsx", is_mounted=True, answered=False, seconds=11.0),))
INSIDE = datetime(2026, 1, 6, 5, 10, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("windows", "now", "severity"),
    [
        (("2:05:00",), INSIDE, Severity.INFO),
        (("2:05:00",), INSIDE + 3600, Severity.DEGRADED),
        ((), INSIDE, Severity.DEGRADED),
        (("4:01:00", "2:05:00"), INSIDE, Severity.INFO),
    ],
)
def test_a_check_is_quiet_while_one_is_open(windows: tuple[str, ...], now: float, severity: Severity) -> None:
    settings = check_settings(AgentConfig(filesystem_maintenance=windows), load_checks(), clock=lambda: now)
    (finding,) = settings["shared_filesystem"].spec.run(HUNG, settings["shared_filesystem"].thresholds)
    assert finding.severity is severity


def test_what_is_no_window_is_told() -> None:
    with pytest.raises(ValueError, match="d:HH:MM"):
        AgentConfig(filesystem_maintenance=("Tuesday",))
    with pytest.raises(ValueError, match="whole path"):
        AgentConfig(hsm_files=("step-1",))
