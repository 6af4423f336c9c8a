"""A file system's weekly maintenance window: what is seen of it meanwhile is information, and drains nobody. Pure.

FSx for Lustre patches its servers in a window of 30 minutes a week (Amazon FSx for Lustre User Guide, maintenance windows): the
file system is away for some minutes, clients wait and go on by themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from nodewatch.model.health import Finding, Remedy, Severity

_FORM = re.compile(r"([1-7]):([01][0-9]|2[0-3]):([0-5][0-9])", re.ASCII)
_KEPT = frozenset({"filesystem.not_mounted"})
_DAY_S = 86400
_WEEK_S = 7 * _DAY_S
_MONDAY = 4 * _DAY_S
"""The first Monday after the epoch, which was a Thursday."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A window of every week: seconds from Monday 00:00 UTC to its beginning, and how long it is open."""

    starts_s: int
    length_s: float


def parse_window(text: str, *, length_s: float) -> Window:
    """The window of FSx's WeeklyMaintenanceStartTime, `d:HH:MM` in UTC, 1 being Monday. Raises ValueError for another text."""
    found = _FORM.fullmatch(text)
    if found is None:
        raise ValueError(
            f'{text!r} is no weekly window: write it as FSx does, d:HH:MM in UTC, such as "2:05:00" (Tuesday)'
        )
    day, hour, minute = (int(part) for part in found.groups())
    return Window(starts_s=(day - 1) * _DAY_S + hour * 3600 + minute * 60, length_s=length_s)


def is_open(windows: Iterable[Window], now: float) -> bool:
    """Whether one of them is open at `now` (seconds since the epoch). A window may reach over the end of the week."""
    since_monday = (now - _MONDAY) % _WEEK_S
    return any((since_monday - window.starts_s) % _WEEK_S < window.length_s for window in windows)


def quieted(findings: Iterable[Finding], windows: Sequence[Window], now: float) -> tuple[Finding, ...]:
    """The findings; those of a file system are information without a remedy while a window is open, and say so.

    One that is not mounted stays as bad as it is: patching unmounts no client, and a job would write to the local disk.
    """
    if not is_open(windows, now):
        return tuple(findings)
    return tuple(_lowered(finding) for finding in findings)


def _lowered(finding: Finding) -> Finding:
    if finding.family != "filesystem" or finding.fault in _KEPT or finding.severity <= Severity.INFO:
        return finding
    evidence = {**finding.evidence, "in_maintenance": True, "severity": finding.severity.word}
    return replace(finding, severity=Severity.INFO, remedy=Remedy.NONE, evidence=evidence)
