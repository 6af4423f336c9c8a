"""Cases over weeks by the hardware that they were about, and which hardware fails again and again.

A name is not hardware: after a replacement it belongs to another machine. What identifies hardware is the instance id, a
GPU's UUID and a serial number.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from nodewatch.model.ledger import Case, Step
from nodewatch.model.records import Record
from nodewatch.policy.fold import case_from_json
from nodewatch.policy.rules import Rules
from nodewatch.policy.verbs import FAMILY

KINDS = frozenset({"case", "judged"})
"""The records that the history is made of."""

_UUID = re.compile(r"(GPU|MIG)-[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_NO_SERIAL = frozenset({"", "0", "n/a", "none", "unknown", "[n/a]"})
_BEFORE_S = 600.0
"""A job may have ended so long before the case of the fault that ended it was opened."""


def identities(instance: str, subject: str, evidence: Mapping[str, Any]) -> frozenset[str]:
    """What identifies the hardware of a finding or a case; empty when nothing does."""
    found = {instance} if instance else set()
    found |= {text for text in (subject, str(evidence.get("uuid") or "")) if _UUID.fullmatch(text)}
    serial = str(evidence.get("serial") or "").strip()
    if serial.lower() not in _NO_SERIAL:
        found.add(f"serial {serial}")
    return frozenset(found)


def speaks_of_hardware(case: Case, rules: Rules) -> bool:
    """Whether the case counts against its hardware: it was repaired, by no operator's wish, for nothing that nodes share."""
    was_repaired = bool(case.tried) or case.is_admitted
    return was_repaired and case.family != FAMILY and case.family not in rules.shared_families


def is_lemon(hardware: frozenset[str], cases: Iterable[Case], rules: Rules, now: float) -> bool:
    """Whether `hardware` had as many cases within the window as make it not worth another try of the milder rungs."""
    if rules.lemon_cases == 0 or not hardware:
        return False
    count = sum(
        1
        for case in cases
        if now - case.opened_at <= rules.lemon_window_s
        and speaks_of_hardware(case, rules)
        and hardware & identities(case.old_instance, case.subject, case.evidence)
    )
    return count >= rules.lemon_cases


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """What happened to one piece of hardware. `identity` is the node's name where nothing better was known."""

    identity: str
    nodes: tuple[str, ...]
    """The names under which it served, the last one last."""
    cases: int
    first_at: float
    last_at: float
    last_fault: str
    last_step: str
    tried: Mapping[str, int] = field(default_factory=dict)
    """Rungs that were tried, and how often."""
    jobs: tuple[int, ...] = ()
    """Jobs that failed under it."""
    is_lemon: bool = False

    def to_json(self) -> dict[str, Any]:
        """The form of `nodewatch history --json`."""
        return {
            "identity": self.identity,
            "nodes": list(self.nodes),
            "cases": self.cases,
            "first_at": self.first_at,
            "last_at": self.last_at,
            "last_fault": self.last_fault,
            "last_step": self.last_step,
            "tried": dict(self.tried),
            "jobs": list(self.jobs),
            "lemon": self.is_lemon,
        }


def hardware_history(
    records: Iterable[Record], rules: Rules, *, since: float, now: float, node: str | None = None
) -> tuple[Hardware, ...]:
    """All hardware that had a case since `since`, the worst first: by number of cases, then the latest.

    With `node` only what has served under that name. A machine and its GPU are two rows, since either may be at fault.
    """
    cases: dict[str, Case] = {}
    judged: list[tuple[float, str, int]] = []
    for record in records:
        if record.kind == "judged" and record.data.get("node"):
            judged.append((record.at, str(record.data["node"]), int(record.data["job_id"])))
        elif record.kind == "case":
            case = case_from_json(record.data["case"])
            # Where the repair has moved on to another machine, the first one is the one that failed.
            before = cases.get(case.case_id)
            cases[case.case_id] = case
            if before is not None and before.old_instance != case.old_instance:
                cases[f"{case.case_id}\0{before.old_instance}"] = before
    meant = [case for case in cases.values() if case.opened_at >= since and speaks_of_hardware(case, rules)]
    by_identity: dict[str, list[Case]] = {}
    for case in sorted(meant, key=lambda known: (known.opened_at, known.case_id)):
        for identity in identities(case.old_instance, case.subject, case.evidence) or {f"node {case.node}"}:
            by_identity.setdefault(identity, []).append(case)
    rows = [_row(identity, group, judged, meant, rules, now) for identity, group in by_identity.items()]
    if node is not None:
        rows = [row for row in rows if node in row.nodes]
    return tuple(sorted(rows, key=lambda row: (-row.cases, -row.last_at, row.identity)))


def _row(
    identity: str,
    group: list[Case],
    judged: Iterable[tuple[float, str, int]],
    all_cases: Iterable[Case],
    rules: Rules,
    now: float,
) -> Hardware:
    tried: dict[str, int] = {}
    for case in group:
        for rung in case.tried:
            tried[rung.word] = tried.get(rung.word, 0) + 1
    jobs = {
        job_id
        for at, name, job_id in judged
        for case in group
        if name == case.node
        and case.opened_at - _BEFORE_S <= at
        and (case.step is not Step.CLOSED or at <= case.step_at)
    }
    last = group[-1]
    names = dict.fromkeys(case.node for case in reversed(group))
    return Hardware(
        identity=identity,
        nodes=tuple(reversed(names)),
        cases=len({case.case_id for case in group}),
        first_at=group[0].opened_at,
        last_at=last.opened_at,
        last_fault=f"{last.fault} on {last.subject}",
        last_step=last.step.value,
        tried=tried,
        jobs=tuple(sorted(jobs)),
        is_lemon=is_lemon(frozenset({identity}), all_cases, rules, now),
    )
