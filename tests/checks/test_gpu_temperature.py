"""gpu_temperature: the device's own limits as degrees or as a margin, and a concern below them."""

from __future__ import annotations

import pytest

from nodewatch.errors import SensorError
from nodewatch.model.health import Remedy, Severity

from .gpus import Outline, gpu, judged

SHUTDOWN = ("gpu.temperature_shutdown", Severity.FATAL, Remedy.REPLACE)
SLOWDOWN = ("gpu.temperature_slowdown", Severity.DEGRADED, Remedy.HUMAN)
HIGH = ("gpu.temperature_high", Severity.WARN, Remedy.HUMAN)


@pytest.mark.parametrize(
    ("degrees", "slowdown", "shutdown", "expected"),
    [
        (None, 89, 92, []),
        (87, 89, 92, []),
        (88, 89, 92, [HIGH]),
        (89, 89, 92, [SLOWDOWN]),
        (92, 89, 92, [SHUTDOWN]),
        (88, None, None, [HIGH]),
        (70, 0, 0, []),
        (99, 110, 120, [HIGH]),
    ],
)
def test_degrees(degrees: int | None, slowdown: int | None, shutdown: int | None, expected: Outline) -> None:
    hot = gpu(temperature_c=degrees, slowdown_at_c=slowdown, shutdown_at_c=shutdown)
    assert judged("gpu_temperature", hot) == expected


@pytest.mark.parametrize(("margin", "expected"), [(20, []), (-1, []), (-2, [SLOWDOWN]), (-8, [SHUTDOWN])])
def test_margins(margin: int, expected: Outline) -> None:
    hot = gpu(temperature_c=60, temperature_margin_c=margin, slowdown_margin_c=-2, shutdown_margin_c=-8)
    assert judged("gpu_temperature", hot) == expected


def test_memory() -> None:
    assert judged("gpu_temperature", gpu(memory_temperature_c=95, memory_max_c=95)) == [HIGH]
    assert judged("gpu_temperature", gpu(memory_temperature_c=94, memory_max_c=95)) == []


def test_what_cannot_be_seen_is_unknown() -> None:
    with pytest.raises(SensorError):
        judged("gpu_temperature", unreadable=((0, "Unknown Error"),))
    with pytest.raises(SensorError):
        judged("gpu_temperature", partial="half a picture")
