"""Capacity that goes away: a spot interruption, a recommendation to rebalance, the end of a capacity block.

A spot notice comes two minutes before the end, so no job may start and what runs is moved at once. A recommendation may
come to nothing. A capacity block's machines are ended from 30 minutes before its end, announced 40 minutes before;
nothing replaces them there, so a human decides what becomes of the work.
"""

from __future__ import annotations

from collections.abc import Iterator

from nodewatch.checks._api import Phase, check
from nodewatch.model.cloud_samples import Ec2Notice, Ec2Sample
from nodewatch.model.health import Finding, Remedy, Severity


@check(reads=Ec2Sample, phases=Phase.PERIODIC | Phase.PROLOG, every_s=5.0)
def ec2_notices(sample: Ec2Sample) -> Iterator[Finding]:
    """`ec2.spot_interruption`, `ec2.rebalance_recommended`, `ec2.capacity_block_ends`."""
    for notice in sample.notices:
        if notice.kind == "spot_interruption":
            yield _finding("ec2.spot_interruption", notice, Severity.FATAL, Remedy.REPLACE)
        elif notice.kind == "rebalance":
            yield _finding("ec2.rebalance_recommended", notice, Severity.WARN, Remedy.REPLACE)
        else:
            severity = Severity.DEGRADED if notice.is_announced else Severity.INFO
            yield _finding("ec2.capacity_block_ends", notice, severity, Remedy.HUMAN)


def _finding(fault: str, notice: Ec2Notice, severity: Severity, remedy: Remedy) -> Finding:
    return Finding(
        fault=fault,
        subject=notice.subject,
        severity=severity,
        remedy=remedy,
        evidence={"action": notice.action or None, "at": notice.at, "source": "EC2"},
    )
