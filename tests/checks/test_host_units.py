"""host_units: which services matter, and when."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewatch.checks.host_units import HostUnitsThresholds, host_units
from nodewatch.model.host_samples import Unit, UnitSample


def judge(
    name: str,
    active: str,
    *,
    file: str = "enabled",
    load: str = "loaded",
    has_nvswitch: bool = True,
    uptime_s: float = 1e6,
) -> list[tuple[str, str, str, str]]:
    unit = Unit(name=name, load=load, active=active, sub="x", file=file)
    sample = UnitSample(units=(unit,), has_nvswitch=has_nvswitch, uptime_s=uptime_s)
    found = host_units(sample, HostUnitsThresholds())
    return [(finding.fault, finding.subject, finding.severity.word, finding.remedy.word) for finding in found]


@pytest.mark.parametrize(
    ("name", "active", "expected"),
    [
        ("munge", "active", []),
        ("munge", "activating", []),
        ("munge", "failed", [("host.unit_failed", "munge", "degraded", "restart_service")]),
        ("munge", "inactive", [("host.unit_down", "munge", "warn", "restart_service")]),
        ("slurmd", "failed", [("host.unit_failed", "slurmd", "warn", "restart_service")]),
        ("nvidia-dcgm", "failed", [("host.unit_failed", "nvidia-dcgm", "warn", "restart_service")]),
        (
            "nvidia-fabricmanager",
            "failed",
            [("host.unit_failed", "nvidia-fabricmanager", "degraded", "restart_service")],
        ),
    ],
)
def test_what_a_state_amounts_to(name: str, active: str, expected: list[tuple[str, str, str, str]]) -> None:
    assert judge(name, active) == expected


def test_the_fabric_manager_has_nothing_to_do_without_a_switch() -> None:
    assert [found[2] for found in judge("nvidia-fabricmanager", "failed", has_nvswitch=False)] == ["warn"]


def test_what_is_none_of_our_business() -> None:
    assert judge("munge", "failed", file="disabled") == []
    assert judge("munge", "inactive", load="masked") == []
    assert judge("munge", "inactive", uptime_s=10.0) == []


@given(st.text(max_size=9), st.text(max_size=9), st.text(max_size=9), st.text(max_size=9))
def test_no_words_raise(name: str, active: str, file: str, load: str) -> None:
    judge(name, active, file=file, load=load)
