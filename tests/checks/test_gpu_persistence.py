"""gpu_persistence: a setting, never more than a warning."""

from __future__ import annotations

import pytest

from nodewatch.errors import SensorError
from nodewatch.model.health import Remedy, Severity

from .gpus import Outline, gpu, judged


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (None, []),
        (True, []),
        (False, [("config.persistence_mode", Severity.WARN, Remedy.RESTART_SERVICE)]),
    ],
)
def test_modes(mode: bool | None, expected: Outline) -> None:
    assert judged("gpu_persistence", gpu(persistence=mode)) == expected


def test_what_cannot_be_seen_is_unknown() -> None:
    with pytest.raises(SensorError):
        judged("gpu_persistence", unreadable=((0, "Unknown Error"),))
    with pytest.raises(SensorError):
        judged("gpu_persistence", partial="half a picture")
