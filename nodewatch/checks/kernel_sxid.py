"""NVSwitch faults (SXid) in the kernel log, by the word Fatal or Non-fatal that the driver puts on each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nodewatch.checks._api import Phase, check
from nodewatch.checks._kernel import MAX_LINE, evidence, mentioning
from nodewatch.model.health import Finding, Remedy, Severity
from nodewatch.model.samples import KmsgRecord, KmsgSample

_SXID = re.compile(
    r"SXid \(PCI:(?P<pci>[0-9a-fA-F]{4,8}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2}(?:\.[0-9a-fA-F])?)\): (?P<number>\d{1,6})(?!\d)"
    r"(?P<rest>.*)",
    re.DOTALL | re.ASCII,
)
_KIND = re.compile(r", (?P<kind>Non-fatal|Fatal)\b(?:, Link (?P<link>\d{1,3}))?")
_DETAIL = re.compile(r", (?:Severity (?P<severity>\d)|Data \{|Sub-engine)")


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelSxidThresholds:
    """What a site leaves out."""

    ignored: tuple[int, ...] = ()
    """SXid numbers that give no finding."""


@check(reads=KmsgSample, phases=Phase.PERIODIC | Phase.DEEP, lasting=True, thresholds=KernelSxidThresholds)
def kernel_sxid(sample: KmsgSample, thresholds: KernelSxidThresholds) -> Iterator[Finding]:
    """One finding for each switch and number, `gpu.sxid.<number>`: fatal asks for a reboot, non-fatal is a warning.

    NVIDIA's Fabric Manager guide: after a fatal SXid the GPUs of the partition, or the whole machine, must be reset before
    new work starts; a non-fatal one needs no immediate action. A line with neither word is a warning for a human, and
    so is one with the data words alone, where the line with the kind is gone from the log.
    """
    before = _lines(sample.recent, thresholds)
    for (number, pci), all_lines in _lines(sample.records, thresholds).items():
        # The lines with severity and data words stand beside a line with the kind and say nothing new.
        kinds = [line for line in all_lines if not _DETAIL.match(line[1]["rest"])]
        if not kinds and (number, pci) in before:
            continue
        lines = kinds or all_lines
        severity, remedy, kind = Severity.WARN, Remedy.HUMAN, ""
        for _, match in lines:
            said = _KIND.match(match["rest"])
            detail = _DETAIL.match(match["rest"])
            if (said is not None and said["kind"] == "Fatal") or (detail is not None and detail["severity"] == "1"):
                severity, remedy, kind = Severity.FATAL, Remedy.REBOOT, "Fatal"
            elif said is not None and not kind:
                severity, remedy, kind = Severity.WARN, Remedy.NONE, "Non-fatal"
        links = sorted({int(m["link"]) for _, match in lines if (m := _KIND.match(match["rest"])) and m["link"]})
        yield Finding(
            fault=f"gpu.sxid.{number}",
            subject=pci,
            severity=severity,
            remedy=remedy,
            evidence=evidence(lines[0][0], sxid=number, kind=kind or None, links=links, count=len(lines)),
        )


def _lines(
    records: Sequence[KmsgRecord], thresholds: KernelSxidThresholds
) -> dict[tuple[int, str], list[tuple[KmsgRecord, re.Match[str]]]]:
    """The lines of each number and switch, in order."""
    found: dict[tuple[int, str], list[tuple[KmsgRecord, re.Match[str]]]] = {}
    for record in mentioning(records, "SXid"):
        match = _SXID.search(record.text[:MAX_LINE])
        if match is not None and int(match["number"]) not in thresholds.ignored:
            found.setdefault((int(match["number"]), match["pci"].lower()), []).append((record, match))
    return found
