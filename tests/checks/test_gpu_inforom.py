"""gpu_inforom: a corrupt InfoROM warns."""

from __future__ import annotations

import pytest

from nodewatch.errors import SensorError
from nodewatch.model.health import Remedy, Severity

from .gpus import Outline, gpu, judged


@pytest.mark.parametrize(
    ("corrupt", "expected"),
    [(None, []), (False, []), (True, [("gpu.inforom_corrupt", Severity.WARN, Remedy.HUMAN)])],
)
def test_inforom(corrupt: bool | None, expected: Outline) -> None:
    assert judged("gpu_inforom", gpu(inforom_corrupt=corrupt)) == expected


def test_what_cannot_be_seen_is_unknown() -> None:
    with pytest.raises(SensorError):
        judged("gpu_inforom", unreadable=((0, "Unknown Error"),))
    with pytest.raises(SensorError):
        judged("gpu_inforom", partial="half a picture")
