"""dcgm_health: what an incident amounts to, and what proves nothing."""

from __future__ import annotations

import pytest

from nodewatch.checks.dcgm_health import dcgm_health
from nodewatch.errors import SensorError
from nodewatch.model.gpu_samples import DcgmHealthSample, DcgmIncident
from nodewatch.model.health import Remedy, Severity


def incident(text: str, health: str = "failure", system: str = "Memory system") -> DcgmIncident:
    return DcgmIncident(group="GPU", entity=4, system=system, health=health, text=text)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (incident("Row remapping failure"), ("gpu.dcgm.row_remap_failure", Severity.FATAL, Remedy.REPLACE)),
        (incident("Row remapping failure", "warning"), ("gpu.dcgm.row_remap_failure", Severity.WARN, Remedy.REPLACE)),
        (incident("words"), ("gpu.dcgm.health_memory", Severity.DEGRADED, Remedy.HUMAN)),
        (incident("words", "warning"), ("gpu.dcgm.health_memory", Severity.WARN, Remedy.HUMAN)),
        (incident("GPU 4 had Xid 79"), ("gpu.dcgm.xid_79", Severity.FATAL, Remedy.REBOOT)),
        (incident("Persistence mode is off"), ("config.persistence_mode", Severity.WARN, Remedy.RESTART_SERVICE)),
    ],
)
def test_incidents(given: DcgmIncident, expected: tuple[str, Severity, Remedy]) -> None:
    (finding,) = dcgm_health(DcgmHealthSample(overall=given.health, incidents=(given,)))
    assert (finding.fault, finding.severity, finding.remedy) == expected
    assert finding.subject == "gpu-4"


@pytest.mark.parametrize(
    ("overall", "severity"), [("failure", Severity.DEGRADED), ("warning", Severity.WARN), ("healthy", None)]
)
def test_overall_health_without_incidents(overall: str, severity: Severity | None) -> None:
    findings = list(dcgm_health(DcgmHealthSample(overall=overall)))
    assert [finding.severity for finding in findings] == ([] if severity is None else [severity])


@pytest.mark.parametrize(
    "sample",
    [
        DcgmHealthSample(overall=""),
        DcgmHealthSample(overall="unknown"),
        DcgmHealthSample(overall="healthy", incidents=(incident("x", "unknown"),)),
        DcgmHealthSample(overall="", watches=(("PCIe", True),)),
        DcgmHealthSample(overall="healthy", watches=(("PCIe", False),)),
    ],
)
def test_what_proves_nothing_is_unknown(sample: DcgmHealthSample) -> None:
    with pytest.raises(SensorError):
        list(dcgm_health(sample))
