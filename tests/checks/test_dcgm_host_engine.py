"""dcgm_host_engine: it answers, or it does not."""

from __future__ import annotations

from nodewatch.checks._api import load_checks
from nodewatch.model.gpu_samples import DcgmEngineSample
from nodewatch.model.health import Remedy, Severity


def test_an_engine_that_answers() -> None:
    assert load_checks()["dcgm_host_engine"].run(DcgmEngineSample(is_answering=True)) == ()


def test_one_that_does_not() -> None:
    (finding,) = load_checks()["dcgm_host_engine"].run(DcgmEngineSample(is_answering=False, said="late"))
    assert (finding.fault, finding.subject) == ("host.dcgm_engine_down", "nv-hostengine")
    assert (finding.severity, finding.remedy) == (Severity.WARN, Remedy.RESTART_SERVICE)
    assert finding.evidence["said"] == "late"
