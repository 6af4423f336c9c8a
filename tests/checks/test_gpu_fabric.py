"""gpu_fabric: what the fabric manager has not set up."""

from __future__ import annotations

import pytest

from nodewatch.errors import SensorError
from nodewatch.model.health import Remedy, Severity

from .gpus import Outline, gpu, judged


@pytest.mark.parametrize(
    ("state", "status", "severity"),
    [
        (None, None, None),
        ("not_supported", None, None),
        ("completed", "success", None),
        ("completed", None, None),
        ("in_progress", None, Severity.DEGRADED),
        ("not_started", None, Severity.FATAL),
        ("completed", "insufficient resources", Severity.FATAL),
    ],
)
def test_states(state: str | None, status: str | None, severity: Severity | None) -> None:
    well = gpu(1, fabric_state="completed", fabric_status="success")
    one = gpu(0, fabric_state=state, fabric_status=status)
    expected: Outline = []
    if severity is not None:
        expected = [("gpu.fabric_not_ready", severity, Remedy.RESTART_SERVICE)]
        assert judged("gpu_fabric", one) == [("gpu.fabric_not_ready", Severity.WARN, Remedy.RESTART_SERVICE)]
    assert judged("gpu_fabric", one, well) == expected


def test_faults() -> None:
    one = gpu(fabric_state="completed", fabric_status="success", fabric_faults=("bandwidth: Degraded",))
    assert judged("gpu_fabric", one) == [("gpu.fabric_fault", Severity.DEGRADED, Remedy.RESET_GPU)]


def test_what_cannot_be_seen_is_unknown() -> None:
    with pytest.raises(SensorError):
        judged("gpu_fabric", unreadable=((0, "Unknown Error"),))
    with pytest.raises(SensorError):
        judged("gpu_fabric", partial="half a picture")
