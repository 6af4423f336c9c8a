"""EC2's status checks of the instance.

* system: the host under the machine, its network or its power. Nothing done to the instance cures it; another host may.
* instance: EC2 does not reach the operating system. It lags behind: for minutes after a reboot it may still say so of a
  machine that is well (ParallelCluster replaced rebooted nodes over it), so jobs may finish and a reboot comes first.
* attached EBS: volumes do not answer; a file system on them hangs.

No data yet, and initializing, are unknown: neither good nor bad.
"""

from __future__ import annotations

from collections.abc import Iterator

from nodewatch.checks._api import Phase, check
from nodewatch.errors import SensorError
from nodewatch.model.cloud_samples import Ec2Sample
from nodewatch.model.health import Finding, Remedy, Severity

_IMPAIRED = {
    "system": ("ec2.system_impaired", Severity.FATAL, Remedy.REPLACE),
    "instance": ("ec2.instance_impaired", Severity.DEGRADED, Remedy.REBOOT),
    "attached_ebs": ("ec2.ebs_impaired", Severity.DEGRADED, Remedy.REPLACE),
    "performance": ("ec2.performance_impaired", Severity.WARN, Remedy.HUMAN),
    "application": ("ec2.application_impaired", Severity.WARN, Remedy.HUMAN),
}
_OPTIONAL = frozenset({"performance", "application"})
"""Made only for who asked for them: that they have no data says nothing of the machine."""


@check(reads=Ec2Sample, phases=Phase.PERIODIC, every_s=60.0)
def ec2_impaired(sample: Ec2Sample) -> Iterator[Finding]:
    """`ec2.system_impaired`, `ec2.instance_impaired`, `ec2.ebs_impaired`, `ec2.performance_impaired`,
    `ec2.application_impaired`.

    Raises SensorError when a check has no answer, or an instance has none, and no other has a finding of degraded or
    worse.
    """
    unknown: str | None = None
    worst = Severity.INFO
    for instance in sample.instances:
        if instance.state not in ("", "running", "pending"):
            unknown = unknown or f"{instance.instance_id} is {instance.state}: EC2 checks only running instances"
            continue
        if instance.state and not {"system", "instance"} <= {found.kind for found in instance.checks}:
            unknown = unknown or f"{instance.instance_id} comes without its system and instance status"
        for found in instance.checks:
            if found.status in ("ok", "not-applicable") or (found.kind in _OPTIONAL and found.status != "impaired"):
                continue
            if found.status != "impaired":
                unknown = unknown or f"the {found.kind} status of {instance.instance_id} is {found.status or 'missing'}"
                continue
            fault, severity, remedy = _IMPAIRED[found.kind]
            worst = max(worst, severity)
            yield Finding(
                fault=fault,
                subject=instance.instance_id,
                severity=severity,
                remedy=remedy,
                evidence={
                    "status": found.status,
                    "impaired_since": found.impaired_since,
                    "details": list(found.details),
                    "source": "describe-instance-status",
                },
            )
    if unknown is not None and worst < Severity.DEGRADED:
        raise SensorError(f"{unknown}: ask EC2 again later")
