"""ENA interfaces that were up and are not any more.

An instance with many network cards may have interfaces that nobody configured: those were never up and are none of our
business.
"""

from __future__ import annotations

from collections.abc import Iterator

from nodewatch.checks._api import Phase, check
from nodewatch.model.health import Finding, Remedy, Severity
from nodewatch.model.network_samples import EnaSample

_DOWN = frozenset({"down", "lowerlayerdown", "notpresent"})


@check(reads=EnaSample, phases=Phase.PERIODIC, every_s=60.0)
def host_ena_link(sample: EnaSample) -> Iterator[Finding]:
    """`host.ena_down` on the interface: degraded (reboot) for one that is down or gone and was up since the agent started.

    The states are the kernel's (Documentation/networking/operstates.rst).
    """
    there = {item.name: item.operstate for item in sample.interfaces}
    for name in sorted(sample.were_up):
        state = there.get(name, "gone")
        if state in _DOWN or name not in there:
            yield Finding(
                fault="host.ena_down",
                subject=name,
                severity=Severity.DEGRADED,
                remedy=Remedy.REBOOT,
                evidence={"operstate": state, "source": "/sys/class/net"},
            )
