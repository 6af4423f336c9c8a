"""gpu_recovery_action: what the driver asks for is what is done."""

from __future__ import annotations

import pytest

from nodewatch.errors import SensorError
from nodewatch.model.health import Remedy, Severity

from .gpus import Outline, gpu, judged


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        (None, []),
        ("none", []),
        ("gpu_reset", [("gpu.recovery_action", Severity.FATAL, Remedy.RESET_GPU)]),
        ("node_reboot", [("gpu.recovery_action", Severity.FATAL, Remedy.REBOOT)]),
        ("drain_p2p", [("gpu.recovery_action", Severity.DEGRADED, Remedy.RESET_GPU)]),
        ("drain_and_reset", [("gpu.recovery_action", Severity.DEGRADED, Remedy.RESET_GPU)]),
        ("bus_reset", [("gpu.recovery_action", Severity.FATAL, Remedy.REBOOT)]),
        ("new words", [("gpu.recovery_action", Severity.WARN, Remedy.HUMAN)]),
    ],
)
def test_actions(action: str | None, expected: Outline) -> None:
    assert judged("gpu_recovery_action", gpu(recovery_action=action)) == expected


def test_what_cannot_be_seen_is_unknown() -> None:
    with pytest.raises(SensorError):
        judged("gpu_recovery_action", unreadable=((0, "Unknown Error"),))
    with pytest.raises(SensorError):
        judged("gpu_recovery_action", partial="half a picture")
