"""gpu_retired_pages: pending waits for a reset, too many ask for another machine."""

from __future__ import annotations

import pytest

from nodewatch.errors import SensorError
from nodewatch.model.health import Remedy, Severity

from .gpus import Outline, gpu, judged

PENDING = ("gpu.page_retirement_pending", Severity.DEGRADED, Remedy.RESET_GPU)
LIMIT = ("gpu.retired_pages_limit", Severity.FATAL, Remedy.REPLACE)
MANY = ("gpu.retired_pages", Severity.WARN, Remedy.HUMAN)


@pytest.mark.parametrize(
    ("single", "double", "pending", "expected"),
    [
        (None, None, None, []),
        (2, 1, False, []),
        (0, 1, True, [PENDING]),
        (10, 5, False, [MANY]),
        (60, 3, False, [LIMIT]),
        (60, 3, True, [PENDING, LIMIT]),
    ],
)
def test_pages(single: int | None, double: int | None, pending: bool | None, expected: Outline) -> None:
    pages = gpu(retired_single_bit=single, retired_double_bit=double, retirement_pending=pending)
    assert judged("gpu_retired_pages", pages) == expected


def test_what_cannot_be_seen_is_unknown() -> None:
    with pytest.raises(SensorError):
        judged("gpu_retired_pages", unreadable=((0, "Unknown Error"),))
    with pytest.raises(SensorError):
        judged("gpu_retired_pages", partial="half a picture")
