"""gpu_mig: a mode that waits for a reset; MIG itself is no fault."""

from __future__ import annotations

import pytest

from nodewatch.errors import SensorError
from nodewatch.model.health import Remedy, Severity

from .gpus import Outline, gpu, judged

PENDING = [("config.mig_pending", Severity.WARN, Remedy.RESET_GPU)]


@pytest.mark.parametrize(
    ("current", "pending", "expected"),
    [(None, None, []), (False, False, []), (True, True, []), (False, True, PENDING), (True, False, PENDING)],
)
def test_modes(current: bool | None, pending: bool | None, expected: Outline) -> None:
    assert judged("gpu_mig", gpu(mig_enabled=current, mig_pending=pending)) == expected


def test_what_cannot_be_seen_is_unknown() -> None:
    with pytest.raises(SensorError):
        judged("gpu_mig", unreadable=((0, "Unknown Error"),))
    with pytest.raises(SensorError):
        judged("gpu_mig", partial="half a picture")
