"""dcgm_coverage: what a run must have done to count as a pass."""

from __future__ import annotations

import pytest

from nodewatch.checks.dcgm_coverage import dcgm_coverage
from nodewatch.errors import SensorError
from nodewatch.model.gpu_samples import DcgmDiagSample, DcgmResult


def result(status: str, category: str = "Hardware", test: str = "memory") -> DcgmResult:
    return DcgmResult(test=test, category=category, status=status, said=status, ids=(0,))


DEPLOYED = result("pass", "Deployment", "software")


@pytest.mark.parametrize(
    "results",
    [
        (DEPLOYED,),
        (DEPLOYED, result("pass")),
        (DEPLOYED, result("pass"), result("skip", test="pcie")),
        (DEPLOYED, result("fail")),
        (result("fail", "Deployment", "software"),),
    ],
)
def test_runs_that_say_something(results: tuple[DcgmResult, ...]) -> None:
    assert list(dcgm_coverage(DcgmDiagSample(results=results))) == []


@pytest.mark.parametrize(
    "sample",
    [
        DcgmDiagSample(results=()),
        DcgmDiagSample(results=(DEPLOYED,), runtime_error="another one runs"),
        DcgmDiagSample(results=(result("skip"),)),
        DcgmDiagSample(results=(DEPLOYED, result("skip"))),
        DcgmDiagSample(results=(result("skip", "Deployment", "software"),)),
        DcgmDiagSample(results=(DEPLOYED, result("unknown"))),
    ],
)
def test_what_proves_nothing_is_unknown(sample: DcgmDiagSample) -> None:
    with pytest.raises(SensorError):
        dcgm_coverage(sample)
