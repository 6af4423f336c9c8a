"""gpu_pcie: behind its neighbours is a fault, alike is how the machine was built, slow at idle is nothing."""

from __future__ import annotations

import pytest

from nodewatch.errors import SensorError
from nodewatch.model.health import Remedy, Severity

from .gpus import gpu, judged


@pytest.mark.parametrize(
    ("widths", "links", "severities"),
    [
        ((16, 16), None, []),
        ((8, 16), None, [Severity.DEGRADED]),
        ((8, 8), None, [Severity.WARN, Severity.WARN]),
        ((8, 8), 18, [Severity.DEGRADED, Severity.DEGRADED]),
        ((8,), None, [Severity.WARN]),
        ((None, 16), None, []),
    ],
)
def test_width(widths: tuple[int | None, ...], links: int | None, severities: list[Severity]) -> None:
    gpus = [gpu(n, pcie_width=width, pcie_width_max=16) for n, width in enumerate(widths)]
    found = judged("gpu_pcie", *gpus, nvlinks_expected=links)
    assert found == [("gpu.pcie_width", severity, Remedy.REBOOT) for severity in severities]


@pytest.mark.parametrize(
    ("generation", "state", "busy", "reasons", "is_found"),
    [
        (1, 8, 0, {"idle"}, False),
        (1, 0, 0, set(), False),
        (1, 0, 90, {"idle"}, False),
        (1, 2, 90, set(), False),
        (1, 0, None, set(), False),
        (4, 0, 90, set(), True),
        (5, 0, 90, set(), False),
    ],
)
def test_generation(generation: int, state: int, busy: int | None, reasons: set[str], is_found: bool) -> None:
    work = {"performance_state": state, "utilization_percent": busy, "clock_reasons": frozenset(reasons)}
    slow = gpu(0, pcie_generation=generation, pcie_generation_max=5, **work)
    well = gpu(1, pcie_generation=5, pcie_generation_max=5, performance_state=0, utilization_percent=90)
    expected = [("gpu.pcie_generation", Severity.DEGRADED, Remedy.REBOOT)] if is_found else []
    assert judged("gpu_pcie", slow, well) == expected
    if is_found:
        assert judged("gpu_pcie", slow) == [("gpu.pcie_generation", Severity.WARN, Remedy.REBOOT)]


def test_what_cannot_be_seen_is_unknown() -> None:
    with pytest.raises(SensorError):
        judged("gpu_pcie", unreadable=((0, "Unknown Error"),))
    with pytest.raises(SensorError):
        judged("gpu_pcie", partial="half a picture")
