"""Lustre servers that this client does not reach.

A file system is shared: whatever is wrong with a server shows on every client, and nothing done to a client cures it. A
client waits for a server that fails over and goes on by itself. So jobs may finish, and a human looks; a target in
recovery is only warned of.
"""

from __future__ import annotations

from collections.abc import Iterator

from nodewatch.checks._api import Phase, check
from nodewatch.errors import SensorError
from nodewatch.model.health import Finding, Remedy, Severity
from nodewatch.model.storage_samples import LustreSample

_WELL = frozenset({"ACTIVE", "FULL", "IDLE"})
"""IDLE: the client let go of a target that it does not use (Lustre 2.12 and later), and returns at the next access."""
_WARNED = frozenset({"INACTIVE", "CONNECTING", "REPLAY", "REPLAY_LOCKS", "REPLAY_WAIT", "RECOVER", "NEW"})
"""Taken out by an administrator, or on the way back."""
_BROKEN = frozenset({"ERROR", "DISCONN", "EVICTED", "CLOSED"})


@check(reads=LustreSample, phases=Phase.PERIODIC | Phase.DEEP, every_s=60.0)
def lustre_servers(sample: LustreSample) -> Iterator[Finding]:
    """`filesystem.server_unreachable` or `filesystem.server_not_ready` per target.

    Raises SensorError for a recording that was cut off, when nothing is wrong in what there is.
    """
    worst: dict[str, Finding] = {}
    unknown = sample.incomplete
    for target in sample.targets:
        if target.state in _WELL:
            continue
        if target.state not in _WARNED | _BROKEN:
            unknown = unknown or f"{target.name} is in the state {target.state}, which is none of Lustre's"
            continue
        is_warned = target.state in _WARNED
        finding = Finding(
            fault="filesystem.server_not_ready" if is_warned else "filesystem.server_unreachable",
            subject=target.name,
            severity=Severity.WARN if is_warned else Severity.DEGRADED,
            remedy=Remedy.HUMAN,
            evidence={"state": target.state, "said": target.said or None, "source": target.source},
        )
        before = worst.get(target.name)
        if before is None or finding.severity > before.severity:
            worst[target.name] = finding
    yield from worst.values()
    if unknown is not None and all(found.severity < Severity.DEGRADED for found in worst.values()):
        raise SensorError(f"what the Lustre tools said is not whole ({unknown}): run them again")
