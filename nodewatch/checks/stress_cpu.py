"""Processors that computed a wrong result under load."""

from __future__ import annotations

from collections.abc import Iterator

from nodewatch.checks._api import Phase, check
from nodewatch.model.health import Finding, Remedy, Severity
from nodewatch.model.stress_samples import CpuStressSample


@check(reads=CpuStressSample, phases=Phase.DEEP, every_s=3600.0)
def stress_cpu(sample: CpuStressSample) -> Iterator[Finding]:
    """`host.cpu_wrong_result`: fatal, replace. A processor that miscalculates spoils a training silently; no reset cures it.

    Source: stress-ng(1), --verify; a run that could not be done is the sensor's error and no finding.
    """
    if sample.run.wrong:
        yield Finding(
            fault="host.cpu_wrong_result",
            subject="cpu",
            severity=Severity.FATAL,
            remedy=Remedy.REPLACE,
            evidence={
                "said": list(sample.run.wrong[:5]),
                "count": len(sample.run.wrong),
                "workers": sample.run.workers,
                "seconds": sample.run.seconds,
                "source": "stress-ng",
            },
        )
