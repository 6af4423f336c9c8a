"""NVIDIA driver faults (Xid) in the kernel log, judged by the table in knowledge/xid.toml."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from nodewatch.checks._api import Phase, check
from nodewatch.knowledge.xid import lookup
from nodewatch.model.health import Finding, Remedy, Severity, remedy_of, severity_of
from nodewatch.model.samples import KmsgRecord, KmsgSample

# A line is evidence, not an archive: the kernel caps a record near 1 KiB, a FIFO or a file does not.
_MAX_LINE = 1024

_XID = re.compile(
    r"NVRM: Xid \((?:PCI:|GPU |GPU-|)(?P<pci>[0-9a-fA-F]{4,8}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2}(?:\.[0-9a-fA-F])?)\)"
    r": (?P<number>[0-9]{1,5})(?![0-9])(?P<rest>.*)",
    re.DOTALL,
)
_LOST = re.compile(
    r"NVRM: (?:The NVIDIA )?GPU (?:at )?(?:PCI:)?"
    r"(?P<pci>[0-9a-fA-F]{4,8}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2}(?:\.[0-9a-fA-F])?):? "
    r"(?P<rest>.*has fallen off the bus.*)",
    re.DOTALL,
)
_PID = re.compile(r"\bpid=['\"]?(?P<pid>[0-9]{1,10})")
_NAME = re.compile(r"\bname=(?P<name>[^,]*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelXidThresholds:
    """What a site changes in the table: `severity` and `remedy` by number, such as `severity = { "63" = "degraded" }`.

    Numbers in `ignored` give no finding at all.
    """

    ignored: tuple[int, ...] = ()
    severity: Mapping[str, str] = field(default_factory=dict)
    remedy: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for number in (*self.severity, *self.remedy):
            if not number.isdecimal():
                raise ValueError(f'{number!r} is no Xid number: write it as digits in quotes, such as "63"')
        for word in self.severity.values():
            severity_of(word)
        for word in self.remedy.values():
            remedy_of(word)


@dataclass(frozen=True, slots=True, kw_only=True)
class XidLine:
    """What one line of the kernel log says. `pid` and `name` are None where the driver did not know the process."""

    number: int
    pci_bus_id: str
    rest: str
    pid: int | None = None
    name: str | None = None


def parse_line(text: str) -> XidLine | None:
    """The Xid that `text` announces; None for any other line. Never raises."""
    found = _XID.search(text)
    if found is not None:
        number = int(found["number"])
    else:
        # The driver also says it without a number, and that is the one line left when the ring overran the other.
        found = _LOST.search(text)
        if found is None:
            return None
        number = 79
    rest = found["rest"]
    pid = _PID.search(rest)
    name = _NAME.search(rest)
    process = name["name"].strip().strip("'\"") if name else ""
    return XidLine(
        number=number,
        pci_bus_id=bus_id(found["pci"]),
        rest=rest.lstrip(", "),
        pid=int(pid["pid"]) if pid else None,
        name=process if process and process != "<unknown>" else None,
    )


def bus_id(text: str) -> str:
    """One spelling for the forms in use: `00000000:53:00.0`, `0000:53:00` and `0000:53:00.0` all become `0000:53:00`."""
    domain, bus, device = text.lower().split(":")
    return f"{int(domain, 16):04x}:{bus}:{device.partition('.')[0]}"


@check(reads=KmsgSample, phases=Phase.PERIODIC | Phase.DEEP, lasting=True, thresholds=KernelXidThresholds)
def kernel_xid(sample: KmsgSample, thresholds: KernelXidThresholds) -> Iterator[Finding]:
    """One finding for each Xid line, `gpu.xid.<number>` on the GPU's PCI address."""
    for record in sample.records:
        line = parse_line(record.text)
        if line is not None and line.number not in thresholds.ignored:
            yield _finding(record, line, thresholds)


def _finding(record: KmsgRecord, line: XidLine, thresholds: KernelXidThresholds) -> Finding:
    xid = lookup(line.number)
    severity, remedy = _judge(line, thresholds)
    evidence: dict[str, object] = {
        "xid": line.number,
        "name": xid.name,
        "line": record.text[:_MAX_LINE],
        "pid": line.pid,
        "process": line.name,
        "sequence": record.sequence,
        "since_boot_us": record.since_boot_us,
        "action": xid.nvidia,
        "source": "kernel log",
    }
    return Finding(
        fault=f"gpu.xid.{line.number}",
        subject=line.pci_bus_id,
        severity=severity,
        remedy=remedy,
        evidence=evidence,
    )


def _judge(line: XidLine, thresholds: KernelXidThresholds) -> tuple[Severity, Remedy]:
    severity, remedy = lookup(line.number).judge(line.rest)
    number = str(line.number)
    if number in thresholds.severity:
        severity = severity_of(thresholds.severity[number])
    if number in thresholds.remedy:
        remedy = remedy_of(thresholds.remedy[number])
    return severity, remedy
