"""What the NVIDIA driver says without an Xid: a GPU that it cannot start, a program of another driver release."""

from __future__ import annotations

import re
from collections.abc import Iterator

from nodewatch.checks._api import Phase, check
from nodewatch.checks._kernel import Line, hits
from nodewatch.model.health import Finding, Remedy, Severity
from nodewatch.model.samples import KmsgSample

_PCI = r"(?P<subject>[0-9a-fA-F]{4,8}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2})(?:\.[0-9a-fA-F])?"
_LINES = (
    Line(
        fault="gpu.init_failed",
        pattern=re.compile(
            rf"NVRM: (?:GPU (?:at )?(?:PCI:)?{_PCI}:? )?RmInitAdapter failed! ?(?P<code>\(0x[0-9a-fx:]{{1,40}}\))?"
        ),
        severity=Severity.DEGRADED,
        remedy=Remedy.REBOOT,
        subject="gpu",
    ),
    Line(
        fault="gpu.uvm_fatal",
        pattern=re.compile(r"NVRM: .{0,60}uvm encountered global fatal error (?P<error>0x[0-9a-f]{1,8})"),
        severity=Severity.FATAL,
        remedy=Remedy.REBOOT,
        subject="nvidia-uvm",
    ),
    Line(
        fault="gpu.api_mismatch",
        pattern=re.compile(r"NVRM: API mismatch: (?:the|this) (?P<who>client|kernel module)"),
        severity=Severity.WARN,
        remedy=Remedy.HUMAN,
        subject="driver",
    ),
)


@check(reads=KmsgSample, phases=Phase.PERIODIC | Phase.DEEP, lasting=True)
def kernel_nvidia(sample: KmsgSample) -> Iterator[Finding]:
    """`gpu.init_failed` on the GPU's PCI address (degraded, reboot: no program can open it), `gpu.uvm_fatal` (fatal: the
    driver says itself that only a reboot recovers it), `gpu.api_mismatch` (a warning for a human: a container or a package
    of another driver release is configuration and never hardware)."""
    for hit in hits(sample, ("RmInitAdapter failed", "API mismatch", "global fatal error"), _LINES):
        yield hit.finding()
