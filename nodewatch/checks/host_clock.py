"""The host's clock: kept right by somebody, or drifting."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nodewatch.checks._api import Phase, check
from nodewatch.model.health import Finding, Remedy, Severity
from nodewatch.model.host_samples import ClockSample


@dataclass(frozen=True, slots=True, kw_only=True)
class HostClockThresholds:
    """How long a clock may take, and how far off it may be."""

    settle_s: float = 900.0
    """After a boot chrony takes some polls, of up to 1024 s with a slow source, before it vouches for the clock."""
    max_error_s: float = 2.0
    """MUNGE refuses a credential that is 300 s off and warns well before; a cluster's logs cannot be put in order beyond
    a second or two. The kernel's own bound without synchronisation rises to 16 s (NTP_PHASE_LIMIT)."""


@check(reads=ClockSample, phases=Phase.PERIODIC | Phase.DEEP, every_s=60.0, thresholds=HostClockThresholds)
def host_clock(sample: ClockSample, thresholds: HostClockThresholds) -> Iterator[Finding]:
    """`host.clock_unsynchronised`, a warning: nobody keeps the clock (chronyd, ntpd or timesyncd is missing or cannot reach
    its source), or the kernel's own bound on its error is large."""
    if sample.uptime_s < thresholds.settle_s:
        return
    if not sample.is_synchronised or sample.max_error_s > thresholds.max_error_s:
        yield Finding(
            fault="host.clock_unsynchronised",
            subject="clock",
            severity=Severity.WARN,
            remedy=Remedy.RESTART_SERVICE,
            evidence={"is_synchronised": sample.is_synchronised, "max_error_s": round(sample.max_error_s, 3)},
        )
