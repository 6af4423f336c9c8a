"""What the checks of the kernel log have in common: finding their lines quickly, time between lines, evidence.

A storm is tens of thousands of records in one sample and a dozen checks look at each: so a check first asks which records
hold one of its words at all, and tries its patterns only on those.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from nodewatch.model.health import Finding, Remedy, Severity
from nodewatch.model.samples import KmsgRecord, KmsgSample

MAX_LINE = 1024
"""A line is evidence, not an archive: the kernel caps a record near 1 KiB, a FIFO or a file does not."""
_STAMPS = ("%b %d %H:%M:%S", "%a %b %d %H:%M:%S %Y", "%b %d %H:%M:%S.%f")


def mentioning(records: Sequence[KmsgRecord], *words: str) -> list[KmsgRecord]:
    """The records with at least one of `words` in their text, in order."""
    found = {index for word in words for index, record in enumerate(records) if word in record.text}
    return [records[index] for index in sorted(found)]


def at_s(record: KmsgRecord) -> float | None:
    """When the record was written, in seconds from a point that is the same within one log; None when it does not say."""
    if record.since_boot_us is not None:
        return record.since_boot_us / 1e6
    return _seconds(record.stamp) if record.stamp else None


@functools.lru_cache(maxsize=4096)
def _seconds(stamp: str) -> float | None:
    try:
        return _from_1970(datetime.fromisoformat(stamp.replace(",", ".")))
    except ValueError:
        pass
    for form in _STAMPS:
        try:
            # syslog leaves the year out: any leap year will do for the distance of two lines.
            text, full = (stamp, form) if "%Y" in form else (f"2024 {stamp}", f"%Y {form}")
            return _from_1970(datetime.strptime(text, full))  # noqa: DTZ007
        except ValueError:
            continue
    return float(stamp) if re.fullmatch(r"\d{1,12}(?:\.\d{1,9})?", stamp, re.ASCII) else None


def _from_1970(at: datetime) -> float:
    # Not timestamp(): what a time without a zone means there depends on the machine that judges.
    return (at.replace(tzinfo=at.tzinfo or UTC) - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()


def most_within(records: Sequence[KmsgRecord], seconds: float) -> int | None:
    """The largest number of `records` in any window of `seconds`; None when they do not say when they were written."""
    times = sorted(at for record in records if (at := at_s(record)) is not None)
    if not times:
        return None
    most = first = 0
    for last, at in enumerate(times):
        while at - times[first] > seconds:
            first += 1
        most = max(most, last - first + 1)
    return most


def evidence(record: KmsgRecord, **more: Any) -> dict[str, Any]:
    """The evidence that every finding from a kernel-log line carries, with `more`."""
    return {
        **more,
        "line": record.text[:MAX_LINE],
        "sequence": record.sequence,
        "since_boot_us": record.since_boot_us,
        "source": "kernel log",
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One kind of line and what it amounts to.

    The groups of `pattern` go into the evidence; the group `subject` or `subject2` (where a line has two forms) names the part
    that has the fault, else `subject` does.
    """

    fault: str
    pattern: re.Pattern[str]
    severity: Severity
    remedy: Remedy = Remedy.NONE
    subject: str = "kernel"


@dataclass(slots=True)
class Hit:
    """All lines of one kind about one part in a sample; `before` are those in the records just before it."""

    line: Line
    subject: str
    records: list[KmsgRecord] = field(default_factory=list)
    before: list[KmsgRecord] = field(default_factory=list)
    groups: Mapping[str, str] = field(default_factory=dict)

    @property
    def all(self) -> list[KmsgRecord]:
        """The lines before the sample and in it."""
        return [*self.before, *self.records]

    def finding(self, severity: Severity | None = None, remedy: Remedy | None = None, **more: Any) -> Finding:
        """The finding, as the kind of line says unless told otherwise; `count` stands in the evidence of more than one."""
        said = {name: text for name, text in self.groups.items() if not name.startswith("subject")}
        if len(self.records) > 1:
            more = {"count": len(self.records), "last_line": self.records[-1].text[:MAX_LINE], **more}
        return Finding(
            fault=self.line.fault,
            subject=self.subject,
            severity=self.line.severity if severity is None else severity,
            remedy=self.line.remedy if remedy is None else remedy,
            evidence=evidence(self.records[0], **{**said, **more}),
        )


def hits(sample: KmsgSample, words: Sequence[str], lines: Sequence[Line]) -> Iterator[Hit]:
    """The lines of the kinds `lines` by fault and part, in the order of their first record; a record counts once."""
    found: dict[tuple[str, str], Hit] = {}
    for record in mentioning(sample.records, *words):
        match = _match(record, lines)
        if match is not None:
            hit = found.setdefault((match[0].fault, match[1]), Hit(match[0], match[1], groups=match[2]))
            hit.records.append(record)
    if not found:
        return
    for record in mentioning(sample.recent, *words):
        match = _match(record, lines)
        if match is not None and (match[0].fault, match[1]) in found:
            found[match[0].fault, match[1]].before.append(record)
    yield from found.values()


def _match(record: KmsgRecord, lines: Sequence[Line]) -> tuple[Line, str, dict[str, str]] | None:
    text = record.text[:MAX_LINE]
    for line in lines:
        match = line.pattern.search(text)
        if match is not None:
            groups = {name: value for name, value in match.groupdict().items() if value is not None}
            return line, groups.get("subject") or groups.get("subject2", line.subject), groups
    return None
