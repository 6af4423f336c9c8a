"""gpu_nvlink: links that are down, fewer than there should be, or in error."""

from __future__ import annotations

import pytest

from nodewatch.errors import SensorError
from nodewatch.model.health import Remedy, Severity

from .gpus import Outline, gpu, judged, rated

DOWN = ("gpu.nvlink_down", Severity.DEGRADED, Remedy.RESET_GPU)
ALL_DOWN = ("gpu.nvlink_down", Severity.FATAL, Remedy.RESET_GPU)


@pytest.mark.parametrize(
    ("active", "inactive", "expected_links", "mig", "expected"),
    [
        (None, (), 18, False, []),
        (18, (), 18, False, []),
        (17, (4,), 18, False, [DOWN]),
        (17, (), 18, False, [DOWN]),
        (17, (4,), None, False, [DOWN]),
        (0, tuple(range(18)), 18, False, [ALL_DOWN]),
        # A card whose bridge was never fitted.
        (0, (0, 1, 2), None, False, []),
        (0, (0, 1, 2), 18, True, []),
    ],
)
def test_links(
    active: int | None, inactive: tuple[int, ...], expected_links: int | None, mig: bool, expected: Outline
) -> None:
    one = gpu(nvlinks_active=active, nvlinks_inactive=inactive, mig_enabled=mig)
    assert judged("gpu_nvlink", one, nvlinks_expected=expected_links) == expected


@pytest.mark.parametrize(
    ("counter", "grown", "expected"),
    [
        ("nvlink_crc_errors", 6000, []),
        ("nvlink_crc_errors", 6001, [("gpu.nvlink_errors", Severity.DEGRADED, Remedy.RESET_GPU)]),
        ("nvlink_replays", 1, [("gpu.nvlink_errors", Severity.WARN, Remedy.NONE)]),
        ("nvlink_recoveries", 1, [("gpu.nvlink_errors", Severity.WARN, Remedy.NONE)]),
        ("nvlink_recoveries", -1, []),
    ],
)
def test_errors(counter: str, grown: int, expected: Outline) -> None:
    then = gpu(nvlinks_active=18, **{counter: 7})
    now = gpu(nvlinks_active=18, **{counter: 7 + grown})
    assert rated("gpu_nvlink", then, now, 60.0) == expected


def test_what_cannot_be_seen_is_unknown() -> None:
    with pytest.raises(SensorError):
        judged("gpu_nvlink", unreadable=((0, "Unknown Error"),))
    with pytest.raises(SensorError):
        judged("gpu_nvlink", partial="half a picture")
