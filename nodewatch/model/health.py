"""What is wrong with a node: findings by the checks, and the verdict that they amount to."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


class Severity(enum.IntEnum):
    """How bad a finding is for a job on the node; a higher value is worse."""

    INFO = 0
    WARN = 1
    DEGRADED = 2
    """Impaired: the node drains, its jobs may finish."""
    FATAL = 3
    """No job may run here."""

    @property
    def word(self) -> str:
        """The name used in JSON, configuration and metrics."""
        return self.name.lower()


class Remedy(enum.IntEnum):
    """The smallest thing that could cure a finding, mildest first."""

    NONE = 0
    RESTART_APP = 1
    RESTART_SERVICE = 2
    RESET_GPU = 3
    REBOOT = 4
    REPLACE = 5
    HUMAN = 6

    @property
    def word(self) -> str:
        """The name used in JSON, configuration and metrics."""
        return self.name.lower()


def severity_of(word: str) -> Severity:
    """The severity named `word`. Raises ValueError for any other text."""
    return Severity[_known(word, Severity)]


def remedy_of(word: str) -> Remedy:
    """The remedy named `word`. Raises ValueError for any other text."""
    return Remedy[_known(word, Remedy)]


def _known(word: str, kind: type[enum.IntEnum]) -> str:
    name = word.upper()
    if name not in kind.__members__:
        choices = ", ".join(member.name.lower() for member in kind)
        raise ValueError(f"{word!r} is no {kind.__name__.lower()}: use one of {choices}")
    return name


class CheckStatus(enum.Enum):
    """How one run of one check ended. UNKNOWN is neither good nor bad."""

    OK = "ok"
    FINDINGS = "findings"
    UNKNOWN = "unknown"
    NOT_APPLICABLE = "not_applicable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong with one part of a node, with the evidence that was judged.

    `fault` is a dotted name such as `gpu.lost` whose first part is the fault family; `subject` is the part that has it
    (a GPU's UUID, a mount point), stable over time, so that the same fault can be recognised again.
    """

    fault: str
    subject: str
    severity: Severity
    remedy: Remedy
    evidence: Mapping[str, Any] = field(default_factory=dict)

    @property
    def family(self) -> str:
        """The first part of the fault's name: one case is kept per node and family."""
        return self.fault.split(".", 1)[0]

    @property
    def identity(self) -> tuple[str, str]:
        """What makes two findings the same one at different times."""
        return (self.fault, self.subject)

    def to_json(self) -> dict[str, Any]:
        """The form that travels and is kept in the journal."""
        return {
            "fault": self.fault,
            "subject": self.subject,
            "severity": self.severity.word,
            "remedy": self.remedy.word,
            "evidence": dict(self.evidence),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Finding:
        """The inverse of `to_json`. Raises ValueError or KeyError when `data` is not one."""
        return cls(
            fault=str(data["fault"]),
            subject=str(data["subject"]),
            severity=severity_of(str(data["severity"])),
            remedy=remedy_of(str(data["remedy"])),
            evidence=dict(data.get("evidence") or {}),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """How one run of one check ended. `error` says in one sentence why it is UNKNOWN; it is None otherwise."""

    check: str
    status: CheckStatus
    findings: tuple[Finding, ...] = ()
    error: str | None = None
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """The form that travels and is kept in the journal."""
        return {
            "check": self.check,
            "status": self.status.value,
            "findings": [finding.to_json() for finding in self.findings],
            "error": self.error,
        }


class NodeState(enum.Enum):
    """What a node's findings amount to."""

    HEALTHY = "healthy"
    SUSPECT = "suspect"
    """Warnings only: it stays in service, strikes are counted."""
    DEGRADED = "degraded"
    FAILED = "failed"
    UNKNOWN = "unknown"
    """Nothing is known to be wrong, but too little could be read to call it healthy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StandingFinding:
    """A finding that holds now, and since when (seconds since the epoch)."""

    finding: Finding
    first_at: float
    last_at: float

    def to_json(self) -> dict[str, Any]:
        """The finding's own form with the two times added."""
        return {**self.finding.to_json(), "first_at": self.first_at, "last_at": self.last_at}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> StandingFinding:
        """The inverse of `to_json`. Raises ValueError or KeyError when `data` is not one."""
        return cls(
            finding=Finding.from_json(data),
            first_at=float(data["first_at"]),
            last_at=float(data["last_at"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the findings over time say about a node. `unknown` holds (check, why) for each check that could not tell."""

    state: NodeState
    since: float
    findings: tuple[StandingFinding, ...] = ()
    unknown: tuple[tuple[str, str], ...] = ()

    @property
    def shape(self) -> tuple[object, ...]:
        """What makes two verdicts say the same: state, findings and doubts, without the times at which they were seen."""
        return (
            self.state,
            tuple((s.finding.identity, s.finding.severity, s.finding.remedy) for s in self.findings),
            tuple(check for check, _ in self.unknown),
        )

    @property
    def worst(self) -> StandingFinding | None:
        """The finding that weighs most: by severity, then by remedy, then the earliest."""
        if not self.findings:
            return None
        return min(
            self.findings,
            key=lambda s: (-s.finding.severity, -s.finding.remedy, s.first_at, s.finding.identity),
        )

    def to_json(self) -> dict[str, Any]:
        """The form that travels and is kept in the journal."""
        return {
            "state": self.state.value,
            "since": self.since,
            "findings": [standing.to_json() for standing in self.findings],
            "unknown": [{"check": check, "error": error} for check, error in self.unknown],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Verdict:
        """The inverse of `to_json`. Raises ValueError or KeyError when `data` is not one."""
        return cls(
            state=NodeState(data["state"]),
            since=float(data["since"]),
            findings=tuple(StandingFinding.from_json(item) for item in data.get("findings", ())),
            unknown=tuple((str(item["check"]), str(item["error"])) for item in data.get("unknown", ())),
        )


def state_of(findings: tuple[StandingFinding, ...], unknown: tuple[tuple[str, str], ...]) -> NodeState:
    """The node state that standing findings and unanswered checks amount to."""
    worst = max((standing.finding.severity for standing in findings), default=Severity.INFO)
    if worst >= Severity.FATAL:
        return NodeState.FAILED
    if worst >= Severity.DEGRADED:
        return NodeState.DEGRADED
    if unknown:
        return NodeState.UNKNOWN
    if worst >= Severity.WARN:
        return NodeState.SUSPECT
    return NodeState.HEALTHY
