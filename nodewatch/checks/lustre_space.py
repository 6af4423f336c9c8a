"""Lustre file systems, or single targets, that have no space or no inodes left."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nodewatch.checks._api import Phase, check
from nodewatch.model.health import Finding, Remedy, Severity
from nodewatch.model.storage_samples import LustreSample


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """Per cent used. Ours: no source gives numbers; a write to a full target fails even while others have space."""

    warn_percent: int = 90
    target_warn_percent: int = 95
    full_percent: int = 99
    """Of a whole file system: a job's next checkpoint fails."""


@check(reads=LustreSample, phases=Phase.PERIODIC | Phase.DEEP, every_s=300.0, thresholds=Thresholds)
def lustre_space(sample: LustreSample, thresholds: Thresholds) -> Iterator[Finding]:
    """`filesystem.space` and `filesystem.inodes`, of a file system by its mount point or of a target by its name."""
    for usage in sample.usages:
        is_full = usage.is_summary and usage.percent >= thresholds.full_percent
        limit = thresholds.warn_percent if usage.is_summary else thresholds.target_warn_percent
        if usage.percent < limit:
            continue
        yield Finding(
            fault="filesystem.inodes" if usage.is_inodes else "filesystem.space",
            subject=usage.mount if usage.is_summary else usage.name,
            severity=Severity.DEGRADED if is_full else Severity.WARN,
            remedy=Remedy.HUMAN,
            evidence={"percent": usage.percent, "limit": limit, "mount": usage.mount, "source": "lfs df"},
        )
