"""What the EFA and ENA drivers say of their devices: commands without an answer, resets, devices that do not start."""

from __future__ import annotations

import re
from collections.abc import Iterator

from nodewatch.checks._api import Phase, check
from nodewatch.checks._kernel import Line, hits
from nodewatch.model.health import Finding, Remedy, Severity
from nodewatch.model.samples import KmsgSample

# __ibdev_printk writes driver, PCI address and device name; dev_err writes the first two.
_EFA = (
    r"(?:efa (?P<subject>[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f])(?: (?P<device>[\w-]{1,32}))?"
    r"|infiniband (?P<subject2>(?:efa_|rdmap)[\w-]{1,30})): "
)
_ENA = r"ena (?P<subject>[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f])(?: \S{1,16})?: "
_LINES = (
    Line(
        fault="efa.not_started",
        pattern=re.compile(
            _EFA
            + r"(?:Device isn't ready|Reset indication didn't turn|Failed in device init|Failed to initialize .{0,40}device"
            r"|Reading register timed out)"
        ),
        severity=Severity.DEGRADED,
        remedy=Remedy.REBOOT,
        subject="efa",
    ),
    Line(
        fault="efa.not_started",
        pattern=re.compile(
            r"efa[: ].{0,20}probe (?:of |with driver efa )(?P<probe>\S{0,20}) ?failed with error (?P<error>-\d+)"
        ),
        severity=Severity.DEGRADED,
        remedy=Remedy.REBOOT,
        subject="efa",
    ),
    Line(
        fault="efa.no_answer",
        pattern=re.compile(
            _EFA + r"(?:The device (?:didn't send any completion|sent a completion but the driver didn't receive)"
            r"|Wait for completion \(polling\) timeout|Admin queue is closed)"
        ),
        severity=Severity.DEGRADED,
        remedy=Remedy.REBOOT,
        subject="efa",
    ),
    Line(
        fault="efa.command_failed",
        pattern=re.compile(_EFA + r"[Ff]ailed (?:to|in) .{0,80}"),
        severity=Severity.WARN,
        subject="efa",
    ),
    Line(
        fault="network.ena_reset",
        pattern=re.compile(
            _ENA
            + r"(?:Keep alive watchdog timeout|Trigger reset is on|Reset attempt failed|Found a Tx that wasn't completed"
            r"|The number of lost tx completions is above|Admin queue is full|Device reset failed)"
        ),
        severity=Severity.WARN,
    ),
)


@check(reads=KmsgSample, phases=Phase.PERIODIC | Phase.DEEP, lasting=True)
def kernel_efa(sample: KmsgSample) -> Iterator[Finding]:
    """`efa.not_started` and `efa.no_answer` on the device: degraded, reboot. A command that failed is a warning, for a program
    that asks for too much gives one too; `network.ena_reset` is a warning, for the driver recovers by itself.

    After a command without any answer the driver takes its admin queue out of service (efa_com.c, EFA_AQ_STATE_RUNNING), so
    no new queue pair can be made on that device before a reset.
    """
    for hit in hits(sample, ("efa", "rdmap", "ena "), _LINES):
        yield hit.finding()
