"""gpu_pcie_replay: a rate against DCGM's limit for the link, never a count."""

from __future__ import annotations

import pytest

from nodewatch.errors import SensorError
from nodewatch.model.health import Remedy, Severity

from .gpus import gpu, judged, rated


@pytest.mark.parametrize(
    ("grown", "interval_s", "generation", "severity"),
    [
        (0, 60.0, 5, None),
        (8, 60.0, 5, None),
        (9, 60.0, 5, Severity.WARN),
        (31, 60.0, 5, Severity.DEGRADED),
        (16, 60.0, 4, Severity.DEGRADED),
        (8, 60.0, 3, Severity.DEGRADED),
        (31, 600.0, 5, None),
        (-3, 60.0, 5, None),
    ],
)
def test_rate(grown: int, interval_s: float, generation: int, severity: Severity | None) -> None:
    then = gpu(pcie_replays=1000, pcie_generation=generation, pcie_width=16)
    now = gpu(pcie_replays=1000 + grown, pcie_generation=generation, pcie_width=16)
    expected = [] if severity is None else [("gpu.pcie_replays", severity, Remedy.REBOOT)]
    assert rated("gpu_pcie_replay", then, now, interval_s) == expected


def test_a_count_alone_is_nothing() -> None:
    assert judged("gpu_pcie_replay", gpu(pcie_replays=10**6)) == []
    assert rated("gpu_pcie_replay", gpu(1, pcie_replays=0), gpu(0, pcie_replays=10**6), 60.0) == []


def test_what_cannot_be_seen_is_unknown() -> None:
    with pytest.raises(SensorError):
        judged("gpu_pcie_replay", unreadable=((0, "Unknown Error"),))
    with pytest.raises(SensorError):
        judged("gpu_pcie_replay", partial="half a picture")
