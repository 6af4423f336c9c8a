"""What the Lustre client says: evictions, lost connections, and bugs of its own."""

from __future__ import annotations

import re
from collections.abc import Iterator

from nodewatch.checks._api import Phase, check
from nodewatch.checks._kernel import Line, hits
from nodewatch.model.health import Finding, Remedy, Severity
from nodewatch.model.samples import KmsgSample

_TARGET = r"(?P<subject>[\w.-]{1,64}?-(?:MDT|OST)[0-9a-f]{4})"
_LINES = (
    Line(
        fault="host.lustre_bug",
        pattern=re.compile(r"LustreError: .{0,120}(?:\bLBUG\b|ASSERTION\(.{0,80}\) failed)"),
        severity=Severity.DEGRADED,
        remedy=Remedy.REBOOT,
        subject="lustre",
    ),
    Line(
        fault="filesystem.lustre_evicted",
        pattern=re.compile(rf"This client was evicted by {_TARGET}"),
        severity=Severity.WARN,
        remedy=Remedy.RESTART_APP,
    ),
    Line(
        fault="filesystem.lustre_connection_lost",
        pattern=re.compile(rf"Lustre: .{{0,120}}Connection to {_TARGET} .{{0,80}}was lost"),
        severity=Severity.INFO,
    ),
    Line(
        fault="filesystem.lustre_operation_failed",
        pattern=re.compile(
            r"LustreError: .{0,160}(?:operation (?P<operation>\w+) to node \S+ failed: rc = (?P<rc>-?\d+))"
        ),
        severity=Severity.INFO,
        subject="lustre",
    ),
)
_BACK = re.compile(
    r"Connection restored to (?P<target>[\w.-]{1,64}?-(?:MDT|OST)[0-9a-f]{4})"
    r"|(?P<import>[\w.-]{1,64}?-(?:MDT|OST)[0-9a-f]{4})-(?:osc|mdc)-\S+: Connection restored"
)


@check(reads=KmsgSample, phases=Phase.PERIODIC, lasting=True)
def kernel_lustre(sample: KmsgSample) -> Iterator[Finding]:
    """`filesystem.lustre_evicted` on the target (a warning: what was being written is lost, the mount recovers by itself),
    `filesystem.lustre_connection_lost` (information: the client waits), `host.lustre_bug` (degraded, reboot).

    Whether the file system works now is for the check of the mount to say, never for a line of the log.
    """
    found = list(hits(sample, ("Lustre",), _LINES))
    if not found:
        return
    restored = {
        match["target"] or match["import"]
        for record in sample.records
        if "Connection restored" in record.text and (match := _BACK.search(record.text))
    }
    for hit in found:
        yield (
            hit.finding(is_restored=hit.subject in restored)
            if hit.line.fault.startswith("filesystem.")
            else hit.finding()
        )
