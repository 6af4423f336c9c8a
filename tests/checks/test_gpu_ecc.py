"""gpu_ecc: uncorrectable by where it was, history, thresholds, rates."""

from __future__ import annotations

import pytest

from nodewatch.errors import SensorError
from nodewatch.model.gpu_samples import EccCounts
from nodewatch.model.health import Remedy, Severity

from .gpus import Outline, gpu, judged, rated


def counts(total: int, sram: int | None = None, dram: int | None = None, correctable: int = 0) -> EccCounts:
    return EccCounts(uncorrectable=total, sram_uncorrectable=sram, dram_uncorrectable=dram, correctable=correctable)


FATAL = ("gpu.ecc_uncorrectable", Severity.FATAL, Remedy.RESET_GPU)
CONTAINED = ("gpu.ecc_uncorrectable", Severity.DEGRADED, Remedy.RESET_GPU)


@pytest.mark.parametrize(
    ("volatile", "aggregate", "has_remap", "expected"),
    [
        (None, None, True, []),
        (counts(0, 0, 0), counts(0, 0, 0), True, []),
        (counts(1, 0, 1), counts(1, 0, 1), True, [CONTAINED]),
        (counts(1, 0, 1), counts(1, 0, 1), False, [FATAL]),
        (counts(1, 1, 0), counts(1, 1, 0), True, [FATAL]),
        (counts(2, 1, 1), counts(2, 1, 1), True, [FATAL]),
        (counts(1), counts(1), True, [FATAL]),
        (counts(0, 0, 0), counts(3, 0, 3), True, [("gpu.ecc_history", Severity.INFO, Remedy.NONE)]),
        (counts(0, 0, 0), counts(1, 1, 0), True, [("gpu.ecc_sram_history", Severity.WARN, Remedy.NONE)]),
        (counts(0, 0, 0, correctable=10**6), None, True, []),
    ],
)
def test_counts(volatile: EccCounts | None, aggregate: EccCounts | None, has_remap: bool, expected: Outline) -> None:
    failed = False if has_remap else None
    assert judged("gpu_ecc", gpu(ecc_volatile=volatile, ecc_aggregate=aggregate, remap_failed=failed)) == expected


def test_flags() -> None:
    exceeded = gpu(sram_threshold_exceeded=True, ecc_aggregate=counts(9, 9, 0))
    assert judged("gpu_ecc", exceeded) == [("gpu.ecc_sram_threshold", Severity.FATAL, Remedy.REPLACE)]
    assert judged("gpu_ecc", gpu(repair_pending=True)) == [("gpu.repair_pending", Severity.DEGRADED, Remedy.RESET_GPU)]


@pytest.mark.parametrize(
    ("grown", "interval_s", "is_found"),
    [(9, 60.0, False), (10, 60.0, True), (101, 86400.0, True), (100, 86400.0, False), (-5, 60.0, False)],
)
def test_correctable_errors_are_judged_by_rate(grown: int, interval_s: float, is_found: bool) -> None:
    then, now = gpu(ecc_volatile=counts(0, correctable=50)), gpu(ecc_volatile=counts(0, correctable=50 + grown))
    expected = [("gpu.ecc_correctable_rate", Severity.WARN, Remedy.NONE)] if is_found else []
    assert rated("gpu_ecc", then, now, interval_s) == expected


def test_what_cannot_be_seen_is_unknown() -> None:
    with pytest.raises(SensorError):
        judged("gpu_ecc", unreadable=((0, "Unknown Error"),))
    with pytest.raises(SensorError):
        judged("gpu_ecc", partial="half a picture")
