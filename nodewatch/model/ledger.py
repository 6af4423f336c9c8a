"""What the controller remembers: open cases, marked jobs, actions and their outcomes. A pure fold of the journal."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nodewatch.model.actions import Action, DeepCheck
from nodewatch.model.health import Severity
from nodewatch.model.heartbeats import Hang
from nodewatch.model.pairs import Culprit, PairTest
from nodewatch.model.witness import Interruption, Witness


class Rung(enum.IntEnum):
    """The ladder, mildest first."""

    OBSERVE = 0
    DRAIN = 1
    RESET_GPU = 2
    REBOOT = 3
    REPLACE = 4
    HUMAN = 5

    @property
    def word(self) -> str:
        """The name used in JSON, configuration and metrics."""
        return self.name.lower()


class Step(enum.Enum):
    """How far the repair of a case has come."""

    HELD = "held"
    """Opened, not admitted: a guard holds it back."""
    DRAINING = "draining"
    """Out of service; jobs are leaving."""
    RESETTING = "resetting"
    """The agent was asked to reset the GPUs."""
    REBOOTING = "rebooting"
    LAUNCHING = "launching"
    """A new instance was asked for, or capacity is awaited."""
    BOOTING = "booting"
    """The new instance exists; its agent has not been heard."""
    VALIDATING = "validating"
    """The agent was asked to run the deep checks."""
    RETURNING = "returning"
    """The deep checks passed; it goes back into service or becomes the spare."""
    WATCHING = "watching"
    """Back; the case closes when it stays healthy."""
    WAITING_FOR_HUMAN = "waiting_for_human"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One fault family on one node, from its first finding to its end. Times are seconds since the epoch."""

    case_id: str
    node: str
    family: str
    fault: str
    subject: str
    severity: Severity
    rung: Rung
    step: Step
    opened_at: float
    step_at: float
    """When the present step began."""
    fault_at: float = 0.0
    """When the finding was first made."""
    admitted_at: float = 0.0
    """When the guards let it pass; 0 for one that they never did: nothing was done for it."""
    attempt: int = 1
    """Which try of the rung this is, from 1."""
    tried: tuple[Rung, ...] = ()
    old_instance: str = ""
    old_hardware: tuple[str, ...] = ()
    """UUIDs and serial numbers of the GPUs of the machine that had the fault, as far as its agent told them."""
    old_boot: str = ""
    old_slurmd: float = 0.0
    """When the slurmd of the broken machine was started; another time means that another slurmd has registered."""
    new_instance: str = ""
    new_address: str = ""
    spare: str = ""
    """The warm spare that stands in for the node."""
    was_spare: bool = False
    """The node was itself a spare when its fault was found."""
    why: str = ""
    """The last transition's reason, as an operator reads it."""
    evidence: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_open(self) -> bool:
        """Not closed yet."""
        return self.step is not Step.CLOSED

    @property
    def is_admitted(self) -> bool:
        """Past the guards: the node counts as out."""
        return self.step not in (Step.HELD, Step.CLOSED)

    @property
    def is_out(self) -> bool:
        """The node is out of service because of this case."""
        return self.is_admitted and self.step is not Step.WATCHING


class ActionState(enum.Enum):
    """How far an action has come."""

    INTENDED = "intended"
    """Written down; whether it happened is not known."""
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionRecord:
    """The latest of one action: `tries` counts how often it was begun; `is_capacity` that EC2 had no capacity."""

    action: Action
    state: ActionState
    at: float
    tries: int
    result: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""
    is_capacity: bool = False
    error_code: str = ""
    """EC2's own code of the failure, empty where it gave none."""


class Cause(enum.Enum):
    """Why a marked job was interrupted."""

    HARDWARE = "hardware"
    """A part of a machine."""
    INFRASTRUCTURE = "infrastructure"
    """A node was lost, a file system or the network failed."""
    PROGRAM = "program"
    LIMIT = "limit"
    """Its time was used up."""
    PREEMPTION = "preemption"
    """Slurm gave its nodes to another job."""
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkedJob:
    """A job submitted with --auto-resume, over all its restarts."""

    job_id: int
    budget: str
    """What the user gave: a number, or `default`."""
    restart_count: int
    nodes: tuple[str, ...]
    started_at: float
    user: str = ""
    partition: str = ""
    ended_at: float | None = None
    """When its present run ended, None while it runs."""
    exit_code: str = ""
    requeues: int = 0
    """How often we put it back for a node's fault or an unknown one."""
    unknown_requeues: int = 0
    excluded: tuple[str, ...] = ()
    """Nodes that it must not run on again."""
    judged: str = ""
    """The last judgement, as its user reads it."""
    judged_restart: int = -1
    """The run that the last judgement was about, -1 before the first."""
    judged_cause: str = ""
    judged_node: str = ""
    restarts: bool = False
    """Whether the last judgement was to start it again."""
    program_requeues: int = 0
    """How often it was put back although the program itself had failed."""
    failed_step: int | None = None
    """The step that its last run failed at, where no fault of a node ended it: another try that gets no further is the last."""
    witness: Witness | None = None
    """What its present run's output says, once that has ended."""
    interruptions: tuple[Interruption, ...] = ()
    """The last few, the oldest first."""
    inside: tuple[str, ...] = ()
    """Bad nodes of its allocation without which its present run was seen to start again."""
    inside_step: int | None = None
    """The step that it was seen to make then, None before the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownAgent:
    """The identity of a node's machine as last announced."""

    boot_id: str
    instance_id: str
    heard_at: float
    hardware: tuple[str, ...] = ()
    """UUIDs and serial numbers of its GPUs, empty where the agent gave none."""
    bootstrap: str = ""
    """Why its lifecycle script failed, empty where it did not say so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Validated:
    """An agent's answer to one validation. `passed` is None where it could not be told."""

    at: float
    passed: bool | None
    faults: tuple[str, ...] = ()
    """`<fault> on <subject>` of each finding that is degraded or worse."""
    doubts: tuple[str, ...] = ()
    """`<check>: <why>` of each check that could not tell."""
    gave_way_to: str = ""
    """The job for which the long diagnostics were stopped; empty when they were not."""

    @property
    def outline(self) -> str:
        """What is behind it, in a few words; empty for a plain pass."""
        told = self.faults if self.passed is False else self.doubts
        more = f" and {len(told) - 3} more" if len(told) > 3 else ""
        return "; ".join(told[:3]) + more


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckWish:
    """An operator's wish to have a node validated, until it was. Its validations have keys that begin with `key`."""

    key: str
    node: str
    suite: str
    at: float
    by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """An operator's `nodewatch replace|reboot|drain|return` for one node, until it is fulfilled."""

    key: str
    verb: str
    node: str
    at: float
    by: str = ""
    reason: str = ""
    is_forced: bool = False
    """Neither jobs nor limits are waited for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """No new repair in `scope`: `cluster`, `partition:NAME` or `node:NAME`; until a time, or until somebody ends it."""

    scope: str
    at: float
    until: float | None
    by: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckRun:
    """A validation outside of any repair, asked of an agent."""

    action: DeepCheck
    at: float
    answer: Validated | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tested:
    """The last deep validation of a machine that came to a clear answer."""

    instance_id: str
    at: float
    passed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnedAway:
    """The jobs that a node's agent turned away, and what was wrong with the node then and since."""

    times: tuple[float, ...]
    """By the node's own clock, the oldest first; the last few."""
    families: tuple[tuple[str, float], ...] = ()
    """Fault families and when each was told of last: as the cause, or as that of a case."""

    def with_family(self, family: str, at: float) -> TurnedAway:
        """The same with news of a family."""
        return dataclasses.replace(self, families=(*(f for f in self.families if f[0] != family), (family, at)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """The controller's whole memory. Every field follows from the journal alone."""

    cases: Mapping[str, Case] = field(default_factory=dict)
    """Open cases and those closed within the memory of the rules, by case id."""
    jobs: Mapping[int, MarkedJob] = field(default_factory=dict)
    actions: Mapping[str, ActionRecord] = field(default_factory=dict)
    agents: Mapping[str, KnownAgent] = field(default_factory=dict)
    validations: Mapping[str, Validated] = field(default_factory=dict)
    """Answers to the validations of open cases by key."""
    resets: Mapping[str, tuple[bool, str]] = field(default_factory=dict)
    """Outcomes of GPU resets of open cases by key: whether it was done, and the agent's sentence."""
    wishes: Mapping[str, Wish] = field(default_factory=dict)
    """By node."""
    pauses: Mapping[str, Pause] = field(default_factory=dict)
    """By scope."""
    check_wishes: Mapping[str, CheckWish] = field(default_factory=dict)
    """By key, until they are fulfilled or withdrawn."""
    check_runs: Mapping[str, CheckRun] = field(default_factory=dict)
    """By key; of those that ended the last few hundred."""
    turned_away: Mapping[str, TurnedAway] = field(default_factory=dict)
    """By node, until the node is drained by us or returned."""
    quarantined: Mapping[str, str] = field(default_factory=dict)
    """Machines in quarantine and the node that each was: their agents do not speak for it any more."""
    tested: Mapping[str, Tested] = field(default_factory=dict)
    """By node."""
    pair_tests: Mapping[str, PairTest] = field(default_factory=dict)
    """By key; the last few."""
    pair_culprits: Mapping[str, Culprit] = field(default_factory=dict)
    """By node, until a later pair run of it is good."""
    hangs: Mapping[int, Hang] = field(default_factory=dict)
    """By job id, of runs that were judged to hang and have made no step since."""
    replacements: tuple[float, ...] = ()
    """When instances were launched, within a day before the last one."""
    failed_replacements: int = 0
    """How many in a row did not come back healthy."""

    _open: tuple[Case, ...] | None = field(init=False, repr=False, compare=False, default=None)

    @property
    def open_cases(self) -> tuple[Case, ...]:
        """Open cases in the order in which they were opened."""
        if self._open is None:
            # Asked for several times a tick: in a storm over ten thousand nodes each sorting takes longer than the rest.
            found = [case for case in self.cases.values() if case.is_open]
            found.sort(key=lambda case: (case.opened_at, case.case_id))
            object.__setattr__(self, "_open", tuple(found))
        return self._open or ()

    def open_cases_of(self, node: str) -> tuple[Case, ...]:
        """Those of one node: asked for at every message of every agent, where sorting all of them would be work for nothing."""
        found = (case for case in self.cases.values() if case.node == node and case.is_open)
        return tuple(sorted(found, key=lambda c: (c.opened_at, c.case_id)))

    def is_done(self, key: str) -> bool:
        """Whether the action of that key was carried out."""
        record = self.actions.get(key)
        return record is not None and record.state is ActionState.DONE
