"""Capacity that goes away: a spot interruption, a recommendation to rebalance, the end of a capacity block.

A spot notice comes two minutes before the end, so no job may start and what runs is moved at once. A recommendation may
come to nothing. A capacity block's machines are ended from 30 minutes before its end, announced 40 minutes before;
nothing replaces them there, so a human decides what becomes of the work.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nodewatch.checks._api import Phase, check
from nodewatch.model.cloud_samples import Ec2Notice, Ec2Sample
from nodewatch.model.health import Finding, Remedy, Severity


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """How long before the end of a capacity block something is said, in seconds."""

    block_drain_s: float = 2400.0
    """The node drains: 40 minutes, when EC2 itself announces the end; it ends machines from 30 minutes before (AWS: Monitor
    Capacity Blocks using EventBridge). Longer, where jobs need longer to save their state."""
    block_tell_s: float = 86400.0
    """Information. Ours: a day, within which a block can still be extended or the work moved."""


@check(reads=Ec2Sample, phases=Phase.PERIODIC | Phase.PROLOG, every_s=5.0, thresholds=Thresholds)
def ec2_notices(sample: Ec2Sample, thresholds: Thresholds) -> Iterator[Finding]:
    """`ec2.spot_interruption`, `ec2.rebalance_recommended`, `ec2.capacity_block_ends`.

    Every 5 seconds, as AWS advises for spot notices (Spot Instance interruption notices). In a recording the end of a
    block is information unless EC2 announced it, since how near it is, is not known.
    """
    for notice in sample.notices:
        if notice.kind == "spot_interruption":
            yield _finding("ec2.spot_interruption", notice, sample, Severity.FATAL, Remedy.REPLACE)
        elif notice.kind == "rebalance":
            yield _finding("ec2.rebalance_recommended", notice, sample, Severity.WARN, Remedy.REPLACE)
        else:
            seconds = _until(notice, sample)
            is_near = seconds is not None and seconds <= thresholds.block_drain_s
            if notice.is_announced or is_near:
                yield _finding("ec2.capacity_block_ends", notice, sample, Severity.DEGRADED, Remedy.HUMAN)
            elif seconds is None or seconds <= thresholds.block_tell_s:
                yield _finding("ec2.capacity_block_ends", notice, sample, Severity.INFO, Remedy.HUMAN)


def _until(notice: Ec2Notice, sample: Ec2Sample) -> float | None:
    return None if notice.ends_at is None or sample.read_at is None else notice.ends_at - sample.read_at


def _finding(fault: str, notice: Ec2Notice, sample: Ec2Sample, severity: Severity, remedy: Remedy) -> Finding:
    return Finding(
        fault=fault,
        subject=notice.subject,
        severity=severity,
        remedy=remedy,
        evidence={
            "action": notice.action or None,
            "at": notice.at,
            "seconds_left": _until(notice, sample),
            "source": sample.source,
        },
    )
