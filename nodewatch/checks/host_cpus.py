"""The host's processors: fewer than the instance type has, or some that went offline."""

from __future__ import annotations

from collections.abc import Iterator

from nodewatch.checks._api import Phase, check
from nodewatch.knowledge.instance_types import TABLE
from nodewatch.model.health import Finding, Remedy, Severity
from nodewatch.model.host_samples import HostSample


@check(reads=HostSample, phases=Phase.PERIODIC | Phase.DEEP, every_s=30.0)
def host_cpus(sample: HostSample) -> Iterator[Finding]:
    """`host.cpus_missing` (degraded, reboot) on a machine that proves its type, `host.cpus_offline` (a warning).

    EC2 counts threads as vCPUs; a machine that was launched with one thread a core has half of them, and is whole.
    """
    row = TABLE.get(sample.instance_type)
    if row is not None and row.vcpus and sample.cpus_online < row.vcpus and sample.cpus_online != row.vcpus // 2:
        yield Finding(
            fault="host.cpus_missing",
            subject="cpu",
            severity=Severity.DEGRADED,
            remedy=Remedy.REBOOT,
            evidence={
                "online": sample.cpus_online,
                "expected": row.vcpus,
                "instance_type": sample.instance_type,
            },
        )
    elif sample.cpus_present is not None and sample.cpus_online < sample.cpus_present and not sample.is_smt_off:
        yield Finding(
            fault="host.cpus_offline",
            subject="cpu",
            severity=Severity.WARN,
            remedy=Remedy.NONE,
            evidence={"online": sample.cpus_online, "present": sample.cpus_present},
        )
