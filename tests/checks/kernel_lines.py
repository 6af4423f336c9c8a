"""Kernel logs of healthy machines as the kernel and drivers print them, and how a check is asked about lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nodewatch.checks._api import load_checks
from nodewatch.model.health import Finding, Severity
from nodewatch.model.samples import KmsgRecord, KmsgSample

RECORDED = Path(__file__).resolve().parents[1] / "sensors" / "recorded" / "kmsg"
BENIGN = [line.partition("] ")[2] for line in (RECORDED / "healthy.dmesg").read_text(encoding="utf-8").splitlines()]
"""What machines say at boot and while jobs of all kinds run on them, put together from public logs of both."""


def sample(*lines: str, step_s: float = 1.0, recent: int = 0) -> KmsgSample:
    """The lines as records `step_s` apart, the first `recent` of them as seen before."""
    records = tuple(
        KmsgRecord(text=line, sequence=n, since_boot_us=int(1e6 * step_s * n)) for n, line in enumerate(lines)
    )
    return KmsgSample(records=records[recent:], recent=records[:recent])


def ask(check: str, *lines: str, step_s: float = 1.0, recent: int = 0, thresholds: Any = None) -> list[Finding]:
    """The findings of the check named `check` on the lines."""
    return list(load_checks()[check].run(sample(*lines, step_s=step_s, recent=recent), thresholds))


def outline(findings: list[Finding]) -> list[tuple[str, str, str, str]]:
    """Fault, subject, severity and remedy of each, in words."""
    return [(f.fault, f.subject, f.severity.word, f.remedy.word) for f in findings]


def is_silent_on_benign(check: str) -> bool:
    """Whether the check has nothing above a warning to say of a healthy machine's log, whole and line by line."""
    found = ask(check, *BENIGN) + [finding for line in BENIGN for finding in ask(check, line)]
    return all(finding.severity <= Severity.WARN for finding in found)


BEGINNINGS = (
    "NVRM: Xid (PCI:0000:53:00): 74, NVLink: fatal error detected on link ",
    "nvidia-nvswitch0: SXid (PCI:0000:c3:00.0): 2",
    "Out of memory: Killed process ",
    "INFO: task ",
    "watchdog: BUG: soft lockup - CPU#",
    "EDAC MC0: 1",
    "[Hardware Error]: CPU ",
    "XFS (nvme1n1): ",
    "nvme nvme0: I/O ",
    "nvidia 0000:53:00.0: PCIe Bus Error: severity=",
    "efa 0000:a0:19.0 ",
    "LustreError: ",
    "BUG: ",
)
"""Where a fuzzed line begins, so that the fuzz gets past the first word."""
