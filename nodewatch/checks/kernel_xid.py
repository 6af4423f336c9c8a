"""NVIDIA driver faults (Xid) in the kernel log, judged by the table in knowledge/xid.toml."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from nodewatch.checks import _xid_workflows as workflows
from nodewatch.checks._api import Phase, check
from nodewatch.checks._kernel import MAX_LINE, evidence, mentioning
from nodewatch.checks._xid_workflows import Event, Judgement
from nodewatch.knowledge.xid import lookup
from nodewatch.model.health import Finding, Severity, remedy_of, severity_of
from nodewatch.model.samples import KmsgRecord, KmsgSample

_XID = re.compile(
    r"NVRM: Xid \((?:PCI:|GPU |GPU-|)(?P<pci>[0-9a-fA-F]{4,8}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2}(?:\.[0-9a-fA-F])?)"
    # With MIG on, the instance stands behind the address: GPU-I:05, or GPU-I:05 GPU-CI:00.
    r"(?P<instance>(?: [\w:.-]{1,20}){0,3})\)"
    r": (?P<number>[0-9]{1,5})(?![0-9])(?P<rest>.*)",
    re.DOTALL,
)
_LOST = re.compile(
    r"NVRM: (?:The NVIDIA )?GPU (?:at )?(?:PCI:)?"
    r"(?P<pci>[0-9a-fA-F]{4,8}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2}(?:\.[0-9a-fA-F])?):? "
    r"(?P<rest>.*has fallen off the bus.*)",
    re.DOTALL,
)
# At start-up the driver says it in three lines, of which only the first names the GPU.
_NAMED = re.compile(
    r"NVRM: The NVIDIA GPU (?P<pci>[0-9a-fA-F]{4,8}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2}(?:\.[0-9a-fA-F])?)\s*$"
)
_LOST_REST = re.compile(r"NVRM: (?:installed in this system has )?fallen off the bus and")
_PID = re.compile(r"\bpid=['\"]?(?P<pid>[0-9]{1,10})")
_NAME = re.compile(r"\bname=(?P<name>[^,]*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelXidThresholds:
    """What a site changes in the table: `severity` and `remedy` by number, such as `severity = { "63" = "degraded" }`.

    Numbers in `ignored` give no finding at all.
    """

    ignored: tuple[int, ...] = ()
    processes_to_suspect: int = 3
    """Faults of so many different processes on one GPU within a minute are a warning, where each alone would be its program's
    own. NVIDIA's workflows for 13 and 31: the same fault again on one GPU may be the hardware, on several it is the program."""
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


@functools.lru_cache(maxsize=256)
def bus_id(text: str) -> str:
    """One spelling for the forms in use: `00000000:53:00.0`, `0000:53:00` and `0000:53:00.0` all become `0000:53:00`."""
    domain, bus, device = text.lower().split(":")
    return f"{int(domain, 16):04x}:{bus}:{device.partition('.')[0]}"


@check(reads=KmsgSample, phases=Phase.PERIODIC | Phase.DEEP, lasting=True, thresholds=KernelXidThresholds)
def kernel_xid(sample: KmsgSample, thresholds: KernelXidThresholds) -> Iterator[Finding]:
    """`gpu.xid.<number>` on the GPU's PCI address, once for all lines of a burst; severity and remedy by the catalogue.

    Where NVIDIA gives a workflow instead of an action, the lines of the 30 s around decide: 48 with 63 or 64, 45 alone or
    after another, the registers of 74, unit and status of 144 to 150, the new action in the text of 154.
    """
    events = _events(sample.recent, ()), _events(sample.records, sample.recent)
    around = [event for part in events for event in part if event.number not in thresholds.ignored]
    groups: dict[tuple[int, str], list[Event]] = {}
    for event in events[1]:
        if event.number not in thresholds.ignored:
            groups.setdefault((event.number, event.pci), []).append(event)
    timeline = workflows.Timeline(around)
    for (number, _), group in groups.items():
        yield _finding(number, group, timeline, thresholds)


def _events(records: Sequence[KmsgRecord], before: Sequence[KmsgRecord]) -> list[Event]:
    found = []
    named = ""
    for record in mentioning(before[-3:], "The NVIDIA GPU"):
        named = _pci_named(record) or named
    for record in mentioning(records, "NVRM"):
        line = parse_line(_joined(record.text[:MAX_LINE]))
        if line is None:
            named = _pci_named(record) or named
            if not (named and _LOST_REST.search(record.text[:MAX_LINE])):
                continue
            line = XidLine(number=79, pci_bus_id=named, rest="has fallen off the bus")
        found.append(
            Event(
                number=line.number, pci=line.pci_bus_id, rest=line.rest, pid=line.pid, process=line.name, record=record
            )
        )
    return found


def _joined(text: str) -> str:
    """`text` without the line ends within it, which rsyslog writes as #012: one message of the driver may have three lines."""
    return re.sub(r"\s*(?:\n|#012)\s*(?:NVRM: )?", " ", text) if "\n" in text or "#012" in text else text


def _pci_named(record: KmsgRecord) -> str:
    match = _NAMED.search(record.text[:MAX_LINE])
    return bus_id(match["pci"]) if match is not None else ""


def _finding(
    number: int, group: Sequence[Event], timeline: workflows.Timeline, thresholds: KernelXidThresholds
) -> Finding:
    xid = lookup(number)
    worst, event = max(((workflows.judge(event, timeline), event) for event in group), key=lambda pair: pair[0].weight)
    pids = timeline.pids(number, event.pci)
    if worst.severity is Severity.INFO and xid.nvidia == "RESTART_APP" and len(pids) >= thresholds.processes_to_suspect:
        worst = Judgement(severity=Severity.WARN, remedy=worst.remedy, workflow="several processes on one GPU")
    severity, remedy = worst.severity, worst.remedy
    if str(number) in thresholds.severity:
        severity = severity_of(thresholds.severity[str(number)])
    if str(number) in thresholds.remedy:
        remedy = remedy_of(thresholds.remedy[str(number)])
    more: dict[str, object] = {}
    if worst.workflow:
        more["workflow"] = worst.workflow
    if worst.details:
        more.update(worst.details)
    if len(group) > 1:
        more.update(count=len(group), pids=sorted(pids)[:8])
    return Finding(
        fault=f"gpu.xid.{number}",
        subject=event.pci,
        severity=severity,
        remedy=remedy,
        evidence=evidence(
            event.record, xid=number, name=xid.name, pid=event.pid, process=event.process, action=xid.nvidia, **more
        ),
    )
