"""gpu_driver_mismatch: configuration, never more than a warning."""

from __future__ import annotations

import pytest

from nodewatch.errors import SensorError
from nodewatch.model.health import Remedy, Severity

from .gpus import gpu, judged


def test_mismatch() -> None:
    said = "Failed to initialize NVML: Driver/library version mismatch"
    expected = [("config.driver_mismatch", Severity.WARN, Remedy.REBOOT)]
    assert judged("gpu_driver_mismatch", partial="not read", version_mismatch=said) == expected
    assert judged("gpu_driver_mismatch", gpu()) == []


def test_without_a_word_of_the_driver_it_cannot_tell() -> None:
    with pytest.raises(SensorError):
        judged("gpu_driver_mismatch", partial="nvidia-smi stopped")
