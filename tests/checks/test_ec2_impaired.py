"""ec2_impaired: what each check amounts to, and answers that are none."""

from __future__ import annotations

import pytest

from nodewatch.checks.ec2_impaired import ec2_impaired
from nodewatch.errors import SensorError
from nodewatch.model.cloud_samples import Ec2Instance, Ec2Sample, Ec2StatusCheck
from nodewatch.model.health import Remedy, Severity


def sample(kind: str, status: str) -> Ec2Sample:
    kinds = {"system": "ok", "instance": "ok", kind: status}
    checks = tuple(
        Ec2StatusCheck(kind=name, status=word, impaired_since="2026-01-02T03:04:05Z") for name, word in kinds.items()
    )
    return Ec2Sample(instances=(Ec2Instance(instance_id="i-1", state="running", checks=checks),))


@pytest.mark.parametrize(
    ("kind", "fault", "severity", "remedy"),
    [
        ("system", "ec2.system_impaired", Severity.FATAL, Remedy.REPLACE),
        ("instance", "ec2.instance_impaired", Severity.DEGRADED, Remedy.REBOOT),
        ("attached_ebs", "ec2.ebs_impaired", Severity.DEGRADED, Remedy.REPLACE),
        ("performance", "ec2.performance_impaired", Severity.WARN, Remedy.HUMAN),
        ("application", "ec2.application_impaired", Severity.WARN, Remedy.HUMAN),
    ],
)
def test_impaired(kind: str, fault: str, severity: Severity, remedy: Remedy) -> None:
    (finding,) = ec2_impaired(sample(kind, "impaired"))
    assert (finding.fault, finding.severity, finding.remedy, finding.subject) == (fault, severity, remedy, "i-1")
    assert finding.evidence["impaired_since"] == "2026-01-02T03:04:05Z"
    assert list(ec2_impaired(sample(kind, "ok"))) == []


@pytest.mark.parametrize("status", ["initializing", "insufficient-data", ""])
def test_no_answer_is_unknown(status: str) -> None:
    with pytest.raises(SensorError):
        list(ec2_impaired(sample("instance", status)))


@pytest.mark.parametrize("kind", ["performance", "application"])
def test_what_nobody_asked_ec2_to_look_at_is_not_missed(kind: str) -> None:
    assert list(ec2_impaired(sample(kind, "insufficient-data"))) == []


def test_a_fault_counts_although_another_check_has_no_answer() -> None:
    both = (*sample("system", "impaired").instances, *sample("instance", "initializing").instances)
    assert [f.fault for f in ec2_impaired(Ec2Sample(instances=both))] == ["ec2.system_impaired"]


def test_an_instance_that_does_not_run_has_no_status() -> None:
    for instance in (Ec2Instance(instance_id="i-1", state="stopped"), Ec2Instance(instance_id="i-1", state="running")):
        with pytest.raises(SensorError):
            list(ec2_impaired(Ec2Sample(instances=(instance,))))
