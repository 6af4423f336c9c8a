"""gpu_unreadable: one failed value warns, several are a GPU that does not answer."""

from __future__ import annotations

import pytest

from nodewatch.errors import SensorError
from nodewatch.model.health import Remedy, Severity

from .gpus import Outline, gpu, judged


@pytest.mark.parametrize(
    ("failed", "expected"),
    [
        ((), []),
        (("fan_speed",), [("gpu.unreadable", Severity.WARN, Remedy.HUMAN)]),
        (("a", "b", "c"), [("gpu.unreadable", Severity.DEGRADED, Remedy.RESET_GPU)]),
    ],
)
def test_fields(failed: tuple[str, ...], expected: Outline) -> None:
    assert judged("gpu_unreadable", gpu(failed_fields=failed)) == expected


def test_what_cannot_be_seen_is_unknown() -> None:
    with pytest.raises(SensorError):
        judged("gpu_unreadable", unreadable=((0, "Unknown Error"),))
    with pytest.raises(SensorError):
        judged("gpu_unreadable", partial="half a picture")
