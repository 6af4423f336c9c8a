"""Memory of the host that gave back other bytes than were written to it under load."""

from __future__ import annotations

from collections.abc import Iterator

from nodewatch.checks._api import Phase, check
from nodewatch.model.health import Finding, Remedy, Severity
from nodewatch.model.stress_samples import MemoryStressSample


@check(reads=MemoryStressSample, phases=Phase.DEEP, every_s=3600.0)
def stress_memory(sample: MemoryStressSample) -> Iterator[Finding]:
    """`host.memory_wrong_bytes`: fatal, replace. ECC lets a changed bit through only when it could neither mend nor see it.

    Source: stress-ng(1), --vm with --verify; a run that could not be done is the sensor's error and no finding.
    """
    if sample.run.wrong:
        yield Finding(
            fault="host.memory_wrong_bytes",
            subject="memory",
            severity=Severity.FATAL,
            remedy=Remedy.REPLACE,
            evidence={
                "said": list(sample.run.wrong[:5]),
                "count": len(sample.run.wrong),
                "bytes": sample.size,
                "workers": sample.run.workers,
                "seconds": sample.run.seconds,
                "source": "stress-ng",
            },
        )
