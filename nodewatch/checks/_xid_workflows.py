"""What an Xid amounts to where NVIDIA's catalogue gives a workflow instead of an action. Used by kernel_xid alone.

The lines around decide in most of them; their distance in time is NVIDIA's 30 s. A workflow that the words of a line do not
fit falls back to the row of the table.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nodewatch.checks._kernel import at_s
from nodewatch.knowledge import nvlink
from nodewatch.knowledge.xid import lookup
from nodewatch.model.health import Remedy, Severity
from nodewatch.model.samples import KmsgRecord

COMPANION_S = 30.0
"""How far from each other two lines may be and still be of one event (catalogue: CHECK_NVLINK_FAILURE_FLOW)."""
_REPEAT_S = 60.0
_CAUSE = re.compile(r"caused by previous Xid (?P<number>\d{1,5})\b")
_REGISTERS = re.compile(r"link (?P<link>\d{1,3}) ?\((?P<words>0x[0-9a-fA-F]{1,8}(?:, ?0x[0-9a-fA-F]{1,8}){6})\)")
_NVLINK5 = re.compile(
    r"(?P<unit>[A-Z][A-Z0-9_]{2,30}|MSE Degraded)\s+(?P<kind>Non-?fatal|Fatal|Link Fatal)\s+XC ?\d\s+i ?\d"
    r"\s+Link\s+(?P<link>-?\d{1,3})\s+[(\[](?P<words>0x[0-9a-fA-F]{1,8}(?:[ ,]+0x[0-9a-fA-F]{1,8}){0,7})[)\]]",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One Xid line and the record that it is from."""

    number: int
    pci: str
    rest: str
    pid: int | None
    process: str | None
    record: KmsgRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What one line amounts to; `workflow` says which branch was taken, `details` what was decoded."""

    severity: Severity
    remedy: Remedy
    workflow: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def weight(self) -> tuple[int, int]:
        """Orders judgements, the worst last."""
        return (self.severity, self.remedy)


class Timeline:
    """The Xid lines of a sample and of the records just before it, with their times."""

    def __init__(self, events: Sequence[Event]) -> None:
        self._lines: dict[tuple[int, str], _Lines] = {}
        for event in events:
            lines = self._lines.setdefault((event.number, event.pci), _Lines())
            at = at_s(event.record)
            if at is None:
                lines.untimed += 1
            else:
                lines.times.append(at)
            if event.pid is not None:
                lines.pids.add(event.pid)
        for lines in self._lines.values():
            lines.times.sort()

    def has(self, number: int) -> bool:
        """Whether any line has this number, on whichever GPU."""
        return any(found == number for found, _ in self._lines)

    def pids(self, number: int, pci: str) -> set[int]:
        """The processes that the lines of one number on one GPU name."""
        lines = self._lines.get((number, pci))
        return set() if lines is None else lines.pids

    def companions(self, event: Event, *, any_gpu: bool = False) -> list[int]:
        """The other numbers within 30 s, on the same GPU or on any."""
        at = at_s(event.record)
        return sorted(
            {
                number
                for (number, pci), lines in self._lines.items()
                if number != event.number and (any_gpu or pci == event.pci) and lines.near(at, COMPANION_S)
            }
        )

    def repeats(self, event: Event) -> int:
        """How many lines of the same number the GPU had within a minute, this one counted."""
        lines = self._lines.get((event.number, event.pci))
        return 0 if lines is None else lines.near(at_s(event.record), _REPEAT_S)


@dataclass(slots=True)
class _Lines:
    times: list[float] = field(default_factory=list)
    untimed: int = 0
    """Lines that do not say when: they stand close enough in the log to count as near to any other."""
    pids: set[int] = field(default_factory=set)

    def near(self, at: float | None, seconds: float) -> int:
        if at is None:
            return self.untimed + len(self.times)
        # A storm is thousands of lines, and each asks for its neighbours.
        return (
            self.untimed + bisect.bisect_right(self.times, at + seconds) - bisect.bisect_left(self.times, at - seconds)
        )


def judge(event: Event, timeline: Timeline) -> Judgement:
    """What `event` amounts to: by its workflow, else by the row of the table."""
    workflow = _WORKFLOWS.get(event.number)
    judged = workflow(event, timeline) if workflow is not None else None
    return _by_table(event) if judged is None else judged


def _by_table(event: Event, workflow: str = "", **details: Any) -> Judgement:
    severity, remedy = lookup(event.number).judge(event.rest)
    return Judgement(severity=severity, remedy=remedy, workflow=workflow, details=details)


def _xid_45(event: Event, timeline: Timeline) -> Judgement:
    others = timeline.companions(event, any_gpu=True)
    cause = _CAUSE.search(event.rest)
    if cause is not None and not timeline.has(int(cause["number"])):
        # The line that names the fault is gone from the log, and this one knows its number.
        severity, _ = lookup(int(cause["number"])).judge("")
        return Judgement(
            severity=Severity.WARN if severity > Severity.INFO else Severity.INFO,
            remedy=Remedy.NONE,
            workflow="follow the other Xid",
            details={"caused_by": int(cause["number"])},
        )
    if others:
        return Judgement(
            severity=Severity.INFO, remedy=Remedy.NONE, workflow="follow the other Xid", details={"companions": others}
        )
    return _by_table(event, "alone")


def _xid_48(event: Event, timeline: Timeline) -> Judgement | None:
    others = [number for number in timeline.companions(event) if number in (63, 64)]
    if not others:
        return _by_table(event, "alone: reset")
    # The bad row is recorded: jobs on the node may end before the reset that takes it out of use.
    severity = Severity.FATAL if 64 in others else Severity.DEGRADED
    return Judgement(
        severity=severity, remedy=Remedy.RESET_GPU, workflow="drain and reset", details={"companions": others}
    )


def _xid_74(event: Event, timeline: Timeline) -> Judgement | None:
    match = _REGISTERS.search(event.rest)
    if match is None:
        return None
    registers = [int(word, 16) for word in re.split(r", ?", match["words"])]
    kinds = nvlink.kinds_of(registers)
    details = {"link": int(match["link"]), "bits": sorted(kinds)}

    def judged(severity: Severity, remedy: Remedy, workflow: str) -> Judgement:
        return Judgement(severity=severity, remedy=remedy, workflow=workflow, details=details)

    real = kinds - {"ignore"}
    if not kinds:
        return None
    if not real:
        return judged(Severity.INFO, Remedy.NONE, "may be ignored")
    if real == {"threshold"}:
        return judged(Severity.WARN, Remedy.NONE, "corrected errors beyond a threshold: go on")
    if real <= {"secondary", "threshold"}:
        if others := timeline.companions(event, any_gpu=True):
            details["companions"] = others
            return judged(Severity.WARN, Remedy.NONE, "follow the other Xid")
        return judged(Severity.DEGRADED, Remedy.RESET_GPU, "a secondary error without a first one")
    if "ecc" in real and timeline.repeats(event) > 2:
        return judged(Severity.DEGRADED, Remedy.REPLACE, "ECC or parity errors again and again on one GPU's links")
    if real <= {"repeated", "secondary", "threshold"} and timeline.repeats(event) < 2:
        return judged(Severity.WARN, Remedy.NONE, "means something only when it comes again")
    return judged(Severity.DEGRADED, Remedy.RESET_GPU, "reset, which trains the link anew")


def _nvlink5(event: Event, timeline: Timeline) -> Judgement | None:
    match = _NVLINK5.search(event.rest)
    if match is None:
        return None
    words = [int(word, 16) for word in re.split(r"[ ,]+", match["words"])]
    is_fatal = not match["kind"].lower().startswith("non")
    unit = nvlink.unit_of(event.number, match["unit"])
    status = words[1] if len(words) > 1 else 0
    details = {"unit": match["unit"], "link": int(match["link"]), "is_fatal": is_fatal, "status": f"{status:#x}"}
    action = unit.action(words[0], status, is_fatal=is_fatal) if unit is not None and len(words) > 1 else None

    def judged(severity: Severity, remedy: Remedy, workflow: str) -> Judgement:
        return Judgement(severity=severity, remedy=remedy, workflow=workflow, details=details)

    if action is None:
        return _by_table(event, "by the word in the line", **details)
    if action is nvlink.Action.RESET_GPU and is_fatal:
        return judged(Severity.DEGRADED, Remedy.RESET_GPU, "drain and reset")
    if action is nvlink.Action.RESET_GPU:
        # Table and line disagree where the meaning of the words changed with the driver (R575): the line is the driver's own.
        return judged(Severity.WARN, Remedy.NONE, "a reset by the table, non-fatal by the line")
    if action is nvlink.Action.FOLLOW_154:
        if 154 in timeline.companions(event):
            return judged(Severity.WARN, Remedy.NONE, "follow Xid 154")
        return judged(Severity.WARN, Remedy.RESTART_APP, "no Xid 154 with it: the program is started again")
    return judged(Severity.WARN, Remedy.HUMAN if is_fatal else Remedy.NONE, "no action at once")


_WORKFLOWS: Mapping[int, Callable[[Event, Timeline], Judgement | None]] = {
    45: _xid_45,
    48: _xid_48,
    74: _xid_74,
    **dict.fromkeys(range(144, 151), _nvlink5),
}
