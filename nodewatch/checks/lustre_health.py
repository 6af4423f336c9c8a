"""Lustre's own health check of this client says that it is not healthy.

After an LBUG a thread of the client stands still for ever. Whether others do too shows only on other nodes, so a human
looks, as for everything of a shared file system.
"""

from __future__ import annotations

from collections.abc import Iterator

from nodewatch.checks._api import Phase, check
from nodewatch.model.health import Finding, Remedy, Severity
from nodewatch.model.storage_samples import LustreSample


@check(reads=LustreSample, phases=Phase.PERIODIC | Phase.DEEP, every_s=60.0)
def lustre_health(sample: LustreSample) -> Iterator[Finding]:
    """`filesystem.client_unhealthy`."""
    if sample.health not in (None, "healthy"):
        yield Finding(
            fault="filesystem.client_unhealthy",
            subject="lustre",
            severity=Severity.DEGRADED,
            remedy=Remedy.HUMAN,
            evidence={"said": sample.health, "source": "health_check"},
        )
