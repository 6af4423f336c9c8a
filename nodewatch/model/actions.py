"""What the planner may ask for. Each action is idempotent under its key; the key is what EC2 gets as ClientToken."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """Take a node out of service; jobs on it go on."""

    key: str
    node: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkDown:
    """Tell Slurm that a node is gone, so that it ends what ran there without waiting for an answer."""

    key: str
    node: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerReason:
    """Write under an operator's words, where they stand, that they were not understood. The node's state stays."""

    key: str
    node: str
    was: str
    """The reason with the words: another one that was typed meanwhile is not written over."""
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldSpare:
    """Keep a healthy node out of service as a warm spare."""

    key: str
    node: str
    reason: str
    is_down: bool = False
    """Slurm has it down: it has to be resumed first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseSpare:
    """Put a warm spare into service in the place of `stands_in_for`."""

    key: str
    node: str
    stands_in_for: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Requeue:
    """Put a job back into the queue after its node failed."""

    key: str
    job_id: int
    node: str
    """The node that failed under it; empty when none is known to have."""
    cause: str
    """A word of `Cause`."""
    reason: str
    slurm_id: str = ""
    """What scontrol is given where that is not the job id: `<array job>_<task>`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expedite:
    """Let a requeued job start now, before others, away from the suspects (Slurm alone would hold it for two minutes)."""

    key: str
    job_id: int
    priority: int
    exclude: tuple[str, ...]
    """All nodes that it must not run on, the user's own exclusions among them."""
    ours: tuple[str, ...]
    """Those of them that we added."""
    comment: str
    require: tuple[str, ...] | None = None
    """The nodes that its user asked for, less those excluded; None leaves them as they are."""
    releases: bool = False
    """Slurm holds it by itself: that goes first."""
    slurm_id: str = ""
    """What scontrol is given where that is not the job id: `<array job>_<task>`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepNodes:
    """Reserve nodes for a moment so that no other job takes them between a requeue and its start (docs/decisions/0003)."""

    key: str
    job_id: int
    name: str
    nodes: tuple[str, ...]
    minutes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FreeNodes:
    """Delete that reservation: the requeued job, first in the queue, takes the nodes."""

    key: str
    job_id: int
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reboot:
    """Reboot an empty node."""

    key: str
    node: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ResetGpu:
    """Ask the agent of an empty node to reset its GPUs; the outcome is the agent's event `gpu_reset`."""

    key: str
    node: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """Start a new instance that bears the Slurm name of `node`."""

    key: str
    node: str
    launch_template: str
    subnet_id: str | None = None
    source: str = ""
    """Which word of the group's `capacity` this is; empty: the launch template as it is."""
    subnets: tuple[str, ...] = ()
    """Where a fleet may launch it."""
    version: str = "$Default"
    replaces: str = ""
    """The machine that an Auto Scaling group is told is unhealthy."""
    since: float = 0.0
    """A machine of an Auto Scaling group that was launched before is not the replacement."""
    taken: tuple[str, ...] = ()
    """Machines of the group that other repairs were given."""
    lifecycle_script: str = ""
    """Where the machine finds what makes it a node, for its tags. A part of the request, so it is asked for again as it was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terminate:
    """End an instance."""

    key: str
    node: str
    instance_id: str
    evidence: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """What was known of it, so that it stands in the journal before the machine is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepEvidence:
    """Put what is known of a machine where it survives the machine; asks EC2 for the console of one that never answered."""

    key: str
    node: str
    instance_id: str
    case_id: str
    bucket: str
    """S3 bucket; empty: the outcome in the journal is all."""
    wants_console: bool = False
    evidence: Mapping[str, Any] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantine:
    """Keep a broken instance without our node name on it, running or stopped."""

    key: str
    node: str
    instance_id: str
    case_id: str
    stops: bool = False
    evidence: Mapping[str, Any] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportInstance:
    """Tell EC2 that an instance is impaired, and why (ReportInstanceStatus). It changes nothing."""

    key: str
    node: str
    instance_id: str
    reason_code: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RebootInstance:
    """Have EC2 reboot an empty node whose own reboot did not come through."""

    key: str
    node: str
    instance_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Repoint:
    """Give a Slurm node name the address of its new machine."""

    key: str
    node: str
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReturnToService:
    """Let a repaired and validated node take jobs again."""

    key: str
    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeepCheck:
    """Ask the agent of a node to validate it. Nothing changes by asking; the answer is the agent's event `validated`."""

    key: str
    node: str
    suite: str
    """`quick` or `deep` (docs/interfaces.md section 4)."""
    why: str
    """`operator`, `first_boot` or `sweep`."""
    instance_id: str = ""


Action = (
    Drain
    | MarkDown
    | AnswerReason
    | HoldSpare
    | ReleaseSpare
    | Requeue
    | Expedite
    | KeepNodes
    | FreeNodes
    | Reboot
    | ResetGpu
    | Launch
    | Terminate
    | KeepEvidence
    | Quarantine
    | ReportInstance
    | RebootInstance
    | Repoint
    | ReturnToService
    | DeepCheck
)

_KINDS: dict[str, Callable[..., Action]] = {
    "drain": Drain,
    "mark_down": MarkDown,
    "answer_reason": AnswerReason,
    "hold_spare": HoldSpare,
    "release_spare": ReleaseSpare,
    "requeue": Requeue,
    "expedite": Expedite,
    "keep_nodes": KeepNodes,
    "free_nodes": FreeNodes,
    "reboot": Reboot,
    "reset_gpu": ResetGpu,
    "launch": Launch,
    "terminate": Terminate,
    "keep_evidence": KeepEvidence,
    "quarantine": Quarantine,
    "report_instance": ReportInstance,
    "reboot_instance": RebootInstance,
    "repoint": Repoint,
    "return_to_service": ReturnToService,
    "deep_check": DeepCheck,
}
_WORDS: dict[Any, str] = {kind: word for word, kind in _KINDS.items()}

MACHINE = (
    Reboot,
    ResetGpu,
    Launch,
    Terminate,
    KeepEvidence,
    Quarantine,
    ReportInstance,
    RebootInstance,
    Repoint,
)
"""Actions on a node's machine, not on its work."""

DESTRUCTIVE = (MarkDown, Reboot, ResetGpu, Terminate, Quarantine, RebootInstance)
"""Actions that end whatever runs on the node."""


def word_of(action: Action) -> str:
    """The action's name in the journal, in metrics and on screen."""
    return _WORDS[type(action)]


def to_json(action: Action) -> dict[str, Any]:
    """The form kept in the journal."""
    return {"action": word_of(action), **dataclasses.asdict(action)}


def from_json(data: Mapping[str, Any]) -> Action:
    """The inverse of `to_json`. Raises KeyError or TypeError when `data` is not one."""
    kind = _KINDS[data["action"]]
    names = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in data.items() if name in names
    }
    return kind(**values)


def describe(action: Action) -> str:
    """The action as an operator reads it."""
    match action:
        case Drain(node=node, reason=reason):
            return f"drain {node} ({reason})"
        case MarkDown(node=node):
            return f"mark {node} down, it does not answer"
        case AnswerReason(node=node, was=was):
            return f"answer what was typed as the reason of {node} ({was.strip()})"
        case HoldSpare(node=node):
            return f"hold {node} as a warm spare"
        case ReleaseSpare(node=node, stands_in_for=broken):
            return f"put the spare {node} into service for {broken}"
        case Requeue(job_id=job, reason=reason):
            return f"requeue job {job}: {reason}"
        case Expedite(job_id=job, exclude=exclude):
            return f"start job {job} now" + (f", not on {','.join(exclude)}" if exclude else "")
        case KeepNodes(job_id=job, nodes=nodes):
            return f"keep {','.join(nodes)} for job {job}"
        case FreeNodes(job_id=job):
            return f"free the nodes kept for job {job}"
        case Reboot(node=node):
            return f"reboot {node}"
        case ResetGpu(node=node):
            return f"reset the GPUs of {node}"
        case Launch(node=node, launch_template=template, source=source):
            through = f" ({source})" if source not in ("", "launch_template") else ""
            return f"launch a new instance for {node} from {template or 'its group'}{through}"
        case KeepEvidence(node=node, instance_id=instance):
            return f"keep what is known of {instance} ({node})"
        case Quarantine(node=node, instance_id=instance):
            return f"put {instance} into quarantine (was {node})"
        case ReportInstance(node=node, instance_id=instance, reason_code=code):
            return f"report {instance} ({node}) to EC2: {code}"
        case RebootInstance(node=node, instance_id=instance):
            return f"have EC2 reboot {instance} ({node})"
        case Terminate(instance_id=instance, node=node):
            return f"terminate {instance} (was {node})"
        case Repoint(node=node, address=address):
            return f"give {node} the address {address}"
        case ReturnToService(node=node):
            return f"return {node} to service"
        case DeepCheck(node=node, suite=suite, why=why):
            return f"ask for {suite} checks of {node} ({why.replace('_', ' ')})"
