"""Findings over time: what stands, since when, what cleared, and what a node's state is. Pure.

* A lasting finding (a line of the kernel log) holds until it is forgotten after a repair, or until the next boot; one that is
  information or a warning expires.
* Any other finding holds while it is seen and clears after `clear_after` consecutive readings without it, so that a value that
  flickers does not flap the node.
* An unknown answer neither opens nor clears anything. It stands beside the findings with its reason.
* A check that has not answered for `stale_periods` of its periods counts as unknown.
* A check that answers on demand is never unknown here: whoever asked is told. One good answer of it clears its findings,
  since a deep diagnostic is not a value that flickers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from nodewatch.model.health import (
    CheckResult,
    CheckStatus,
    Finding,
    NodeState,
    Severity,
    StandingFinding,
    Verdict,
    state_of,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckRule:
    """What fold must know of a check: whether its findings last, and its period in seconds."""

    lasting: bool
    every_s: float
    is_on_demand: bool = False
    """It answers only when it is asked (a deep diagnostic): silence and doubt say nothing of the node then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How findings open, hold and clear. `checks` names the checks that are switched on; a finding of any other is dropped."""

    checks: Mapping[str, CheckRule]
    clear_after: int = 2
    """Consecutive readings without a finding before it clears."""
    info_ttl_s: float = 3600.0
    """Seconds after which a lasting finding below degraded, not seen again, expires."""
    stale_periods: float = 3.0
    max_findings: int = 200
    """Bound on what is kept; the mildest and then the newest are left out first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A finding that stands, the check that gave it, and how many readings in a row were without it."""

    check: str
    finding: Finding
    lasting: bool
    first_at: float
    last_at: float
    readings_without: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Everything that fold remembers between two calls. It is kept over restarts of the agent."""

    boot_id: str
    held: tuple[Held, ...] = ()
    unknown: Mapping[str, str] = field(default_factory=dict)
    """Why each check could not tell at its last answer."""
    answered_at: Mapping[str, float] = field(default_factory=dict)
    verdict: Verdict | None = None

    def to_json(self) -> dict[str, Any]:
        """The part that outlives a restart: the findings that stand. Answers are asked for anew."""
        return {
            "boot_id": self.boot_id,
            "held": [
                {
                    "check": held.check,
                    "lasting": held.lasting,
                    "first_at": held.first_at,
                    "last_at": held.last_at,
                    "finding": held.finding.to_json(),
                }
                for held in self.held
            ],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Memory:
        """The inverse of `to_json`. Raises ValueError, KeyError or TypeError when `data` is not one."""
        return cls(
            boot_id=str(data["boot_id"]),
            held=tuple(
                Held(
                    check=str(item["check"]),
                    finding=Finding.from_json(item["finding"]),
                    lasting=bool(item["lasting"]),
                    first_at=float(item["first_at"]),
                    last_at=float(item["last_at"]),
                )
                for item in data["held"]
            ),
        )


def fold(memory: Memory, results: Sequence[CheckResult], now: float, rules: Rules) -> tuple[Memory, Verdict, bool]:
    """Memory and verdict after `results`, given in the order in which they were made, and whether the verdict changed.

    Changed means another state, another set of findings (by fault, subject, severity and remedy) or another set of checks that
    cannot tell; a later time or other evidence for the same finding is no change.
    """
    held = {(item.check, *item.finding.identity): item for item in memory.held if item.check in rules.checks}
    unknown = {name: why for name, why in memory.unknown.items() if name in rules.checks}
    answered = {name: at for name, at in memory.answered_at.items() if name in rules.checks}
    for result in results:
        rule = rules.checks.get(result.check)
        if rule is None:
            continue
        answered[result.check] = now
        if result.status is CheckStatus.UNKNOWN and rule.is_on_demand:
            continue
        if result.status is CheckStatus.UNKNOWN:
            unknown[result.check] = result.error or "it gave no reason"
            _interrupt(held, result.check)
            continue
        unknown.pop(result.check, None)
        if result.status is not CheckStatus.NOT_APPLICABLE:
            _read(held, result, rule, now, rules)
    kept = _bounded([item for item in held.values() if not _expired(item, now, rules)], rules)
    verdict = _verdict(memory.verdict, kept, _cannot_tell(unknown, answered, now, rules), now)
    changed = memory.verdict is None or _outline(verdict) != _outline(memory.verdict)
    after = Memory(boot_id=memory.boot_id, held=tuple(kept), unknown=unknown, answered_at=answered, verdict=verdict)
    return after, verdict, changed


def forget(memory: Memory, family: str | None) -> Memory:
    """Memory without the findings of `family`, or without any (None), after a repair: what is still true is seen again."""
    return replace(memory, held=tuple(i for i in memory.held if family is not None and i.finding.family != family))


def booted(memory: Memory, boot_id: str) -> Memory:
    """Memory as of the boot `boot_id`: in a new boot what a kernel log of the old one said holds no longer."""
    if memory.boot_id == boot_id:
        return memory
    return replace(memory, boot_id=boot_id, held=tuple(item for item in memory.held if not item.lasting))


def standing_of(memory: Memory, check: str) -> tuple[Finding, ...]:
    """The findings of `check` that stand."""
    return tuple(item.finding for item in memory.held if item.check == check)


def passed(results: Sequence[CheckResult]) -> bool | None:
    """Whether the node may take work: no as soon as a finding is degraded or worse, None when that could not be told.

    Information and warnings do not keep a node out. No result at all is None: nothing was proved.
    """
    if any(finding.severity >= Severity.DEGRADED for result in results for finding in result.findings):
        return False
    applicable = [result for result in results if result.status is not CheckStatus.NOT_APPLICABLE]
    if not applicable or any(result.status is CheckStatus.UNKNOWN for result in applicable):
        return None
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class HookAnswer:
    """What a hook is told. `counted` marks an answer that was given without knowing."""

    allow: bool
    reason: str = ""
    counted: bool = False


def answer(ask: str, verdict: Verdict) -> HookAnswer:
    """The answer to the hook `ask` (prolog, epilog or healthcheck) under `verdict`.

    A fatal finding denies all three. A shared file system in trouble also denies a prolog: the job would hang at its first
    read, while one that runs is best left alone. A node of which too little is known is allowed, and the answer says so.
    """
    worst = verdict.worst
    if worst is not None and worst.finding.severity >= Severity.FATAL:
        return HookAnswer(allow=False, reason=_because(worst))
    if ask == "prolog":
        for standing in verdict.findings:
            if standing.finding.family == "filesystem" and standing.finding.severity >= Severity.DEGRADED:
                return HookAnswer(allow=False, reason=_because(standing))
    if verdict.unknown:
        check, why = verdict.unknown[0]
        return HookAnswer(
            allow=True, reason=f"allowed without knowing: the check {check} cannot tell ({why})", counted=True
        )
    return HookAnswer(allow=True)


def is_local_and_fatal(standing: StandingFinding) -> bool:
    """Whether the agent may drain its own node for it: a file system in trouble is not this node's own fault."""
    return standing.finding.severity >= Severity.FATAL and standing.finding.family != "filesystem"


def _because(standing: StandingFinding) -> str:
    finding = standing.finding
    return (
        f"nodewatch: {finding.fault} on {finding.subject} ({finding.severity.word}): this node cannot take work"
        f" until it is repaired (remedy {finding.remedy.word})"
    )


def _read(
    held: dict[tuple[str, str, str], Held], result: CheckResult, rule: CheckRule, now: float, rules: Rules
) -> None:
    seen = set()
    for finding in result.findings:
        key = (result.check, *finding.identity)
        seen.add(key)
        before = held.get(key)
        if before is None:
            held[key] = Held(check=result.check, finding=finding, lasting=rule.lasting, first_at=now, last_at=now)
        else:
            # A milder line about the same fault must not talk down what stands: only a repair clears a lasting finding.
            keep = rule.lasting and _weight(before.finding) > _weight(finding)
            held[key] = replace(before, finding=before.finding if keep else finding, last_at=now, readings_without=0)
    for key, item in list(held.items()):
        if item.check != result.check or item.lasting or key in seen:
            continue
        if rule.is_on_demand or item.readings_without + 1 >= rules.clear_after:
            del held[key]
        else:
            held[key] = replace(item, readings_without=item.readings_without + 1)


def _interrupt(held: dict[tuple[str, str, str], Held], check: str) -> None:
    # Readings are consecutive only when nothing unknown lies between them.
    for key, item in held.items():
        if item.check == check and item.readings_without:
            held[key] = replace(item, readings_without=0)


def _weight(finding: Finding) -> tuple[int, int]:
    return (finding.severity, finding.remedy)


def _expired(item: Held, now: float, rules: Rules) -> bool:
    return item.lasting and item.finding.severity < Severity.DEGRADED and now - item.last_at > rules.info_ttl_s


def _bounded(items: list[Held], rules: Rules) -> list[Held]:
    items.sort(key=lambda i: (-i.finding.severity, -i.finding.remedy, i.first_at, i.finding.identity, i.check))
    return items[: rules.max_findings]


def _cannot_tell(
    unknown: Mapping[str, str], answered: Mapping[str, float], now: float, rules: Rules
) -> tuple[tuple[str, str], ...]:
    reasons = dict(unknown)
    for name, rule in rules.checks.items():
        if rule.is_on_demand:
            continue
        at = answered.get(name)
        if at is None:
            reasons[name] = "it has not answered yet"
        elif now - at > rules.stale_periods * rule.every_s:
            # Said without the age: a reason that changes every second would be a new verdict every second.
            reasons[name] = f"it has not answered for more than {rules.stale_periods * rule.every_s:g} s"
    return tuple(sorted(reasons.items()))


def _verdict(before: Verdict | None, held: Sequence[Held], unknown: tuple[tuple[str, str], ...], now: float) -> Verdict:
    # Two checks may say the same of the same part: it is one finding to everybody else.
    by_identity: dict[tuple[str, str], StandingFinding] = {}
    for item in held:
        standing = StandingFinding(finding=item.finding, first_at=item.first_at, last_at=item.last_at)
        by_identity.setdefault(item.finding.identity, standing)
    findings = tuple(by_identity.values())
    state = state_of(findings, unknown)
    since = before.since if before is not None and before.state is state else now
    return Verdict(state=state, since=since, findings=findings, unknown=unknown)


def _outline(verdict: Verdict) -> tuple[NodeState, frozenset[tuple[str, str, int, int]], frozenset[str]]:
    return (
        verdict.state,
        frozenset((*s.finding.identity, int(s.finding.severity), int(s.finding.remedy)) for s in verdict.findings),
        frozenset(check for check, _ in verdict.unknown),
    )
