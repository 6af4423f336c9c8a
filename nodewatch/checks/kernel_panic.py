"""Panics, oopses and bugs of the kernel itself, as a crash dump, a console or the next boot's log shows them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from nodewatch.checks._api import Phase, check
from nodewatch.checks._kernel import Line, hits
from nodewatch.model.health import Finding, Remedy, Severity
from nodewatch.model.samples import KmsgSample

_LINES = (
    Line(
        fault="host.kernel_panic",
        pattern=re.compile(r"^Kernel panic - not syncing: (?P<why>.{0,120})"),
        severity=Severity.FATAL,
        remedy=Remedy.REBOOT,
    ),
    Line(
        fault="host.kernel_oops",
        # "traps: python3[12] general protection fault ip:..." is a program's crash: the kernel's own carry [#N].
        pattern=re.compile(
            r"BUG: unable to handle|BUG: kernel NULL pointer dereference|^kernel BUG at (?P<at>\S{1,80})"
            r"|^(?:Oops|general protection fault|invalid opcode|stack segment|double fault|divide error).{0,80}\[#\d+\]"
            r"|^Internal error: .{0,80}\[#\d+\]"
        ),
        severity=Severity.DEGRADED,
        remedy=Remedy.REBOOT,
    ),
    Line(
        fault="host.kernel_corrupt",
        pattern=re.compile(
            r"^BUG: (?:Bad page (?:state|map)|Bad rss-counter|scheduling while atomic|workqueue lockup)"
            r"|^list_(?:add|del) corruption"
        ),
        severity=Severity.WARN,
    ),
    Line(
        fault="host.kernel_warning",
        pattern=re.compile(r"^WARNING: CPU: \d{1,5} PID: \d{1,10} at (?P<at>\S{1,80})"),
        severity=Severity.INFO,
    ),
)


@check(reads=KmsgSample, phases=Phase.PERIODIC | Phase.DEEP, lasting=True)
def kernel_panic(sample: KmsgSample) -> Iterator[Finding]:
    """`host.kernel_panic` (fatal, reboot), `host.kernel_oops` (degraded, reboot: locks of the task that died stay taken),
    `host.kernel_corrupt` (a warning), `host.kernel_warning` (information)."""
    for hit in hits(sample, ("Kernel panic", "BUG", "[#", "corruption", "WARNING: CPU"), _LINES):
        yield hit.finding()
