"""Was it the machine or the program: the cause of one run's end, from everything that is known of it.

In this order: what its program says of itself with an exit code; a fault of its nodes around the end; Slurm's own word; the
first of its ranks that failed; the lines of its output. Lines of ranks that only lost another one prove nothing about who is
to blame. A line that bad hardware may be behind as well counts as the program's only when all nodes were heard to be healthy.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass

from nodewatch.knowledge.job_signs import EXCEPTION, Told, told
from nodewatch.model.ledger import Case, Cause
from nodewatch.model.witness import Failure, Witness

EXIT_REFUSED = 93
"""Of the training library and of NVIDIA's ft_launcher: starting again cannot help (train/README.md)."""
EXIT_STOPPED = 94
"""It was asked to stop and has saved: it goes on when it is started again."""
_NOT_EXECUTABLE, _NOT_FOUND = 126, 127
_SIGNAL_OFFSET = 128
_KILLED_FROM_OUTSIDE = {2: "SIGINT", 9: "SIGKILL", 15: "SIGTERM"}
_CRASHED = {4: "SIGILL", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE", 11: "SIGSEGV"}
_INFRASTRUCTURE = frozenset({"node", "filesystem", "fabric", "network", "efa", "ib", "ec2", "operator", "config"})
"""Families of faults that are the cluster's and not of a part in the machine."""
_LATER_S = 5.0
"""A finding that is so much younger than the first failure is not its cause. The kernel log is read at once; the rest is for
clocks that differ. Ours."""
_NEVER_HARDWARE = frozenset(
    {"oom_kill", "oom_task", "cuda_oom", "quota", "refused", "not_found", "dataloader_shm", "device_assert"}
)
_NEVER_HARDWARE_ERRORS = frozenset(
    {
        "SyntaxError",
        "IndentationError",
        "ImportError",
        "ModuleNotFoundError",
        "NameError",
        "AttributeError",
        "TypeError",
    }
)
_MOST_EVIDENCE = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What is known of one run that ended, or that a fault is about to end."""

    states: frozenset[str]
    """Slurm's words for the job."""
    exit_code: str = ""
    """`code:signal`, as the hook told it."""
    ended_at: float | None = None
    case: Case | None = None
    """A fatal fault of one of its nodes around the end, or one that stands while it runs."""
    witness: Witness | None = None
    unseen: tuple[str, ...] = ()
    """Nodes of the run that were not heard to be healthy since it ended."""
    down: tuple[str, ...] = ()
    """Nodes of the run that Slurm has given up."""
    gpu_held: str = ""
    """A node of the run on which something else held the memory of a GPU."""
    was_preempted: bool = False
    hang: str = ""
    """What the heartbeats say of ranks that stood still, empty where they went on."""
    hang_node: str = ""
    failed_step: int | None = None
    """The step at which the run before this one failed, where that was no fault of a node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blame:
    """The verdict. `why` completes "the job was interrupted: ..."; `is_hopeless` where starting again cannot help."""

    cause: Cause
    why: str
    evidence: tuple[str, ...] = ()
    node: str = ""
    is_hopeless: bool = False
    goes_on: bool = False
    """It ended because it was asked to, and wants to be started again."""


def blame(known: Evidence) -> Blame:
    """Why the run ended."""
    found = _cause(known)
    step = known.witness.last_step if known.witness is not None else None
    if known.case is not None or known.failed_step is None or step is None or step > known.failed_step:
        return found
    if found.cause not in (Cause.PROGRAM, Cause.UNKNOWN, Cause.INFRASTRUCTURE, Cause.LIMIT):
        return found
    # The same step twice is no accident: whatever it is, another try ends there too.
    cause = Cause.PROGRAM if found.cause is Cause.UNKNOWN and not known.unseen else found.cause
    why = f"{found.why}; it made no progress since the last try (step {step}, before that step {known.failed_step})"
    return dataclasses.replace(found, cause=cause, why=why, is_hopeless=True)


def cause_of(fault: str) -> Cause:
    """Whether a fault of a node is of the machine's parts or of what connects and feeds it."""
    return Cause.INFRASTRUCTURE if fault.partition(".")[0] in _INFRASTRUCTURE else Cause.HARDWARE


def code_and_signal(exit_code: str) -> tuple[int, int]:
    """Of `code:signal`; a shell's 128 + n counts as the signal n. Zeros for what cannot be read."""
    found = re.fullmatch(r"(\d{1,4}):(\d{1,3})", exit_code)
    if found is None:
        return 0, 0
    code, number = int(found[1]), int(found[2])
    if not number and _SIGNAL_OFFSET < code <= _SIGNAL_OFFSET + 64:
        number = code - _SIGNAL_OFFSET
    return code, number


def _cause(known: Evidence) -> Blame:
    code, number = code_and_signal(known.exit_code)
    first = known.witness.first_failure if known.witness is not None else None
    if code == EXIT_REFUSED or (first is not None and first.kind == "refused"):
        told_by = () if first is None else (_of_failure(first),)
        why = "the program refused to go on (exit code 93): starting it again cannot help"
        return Blame(cause=Cause.PROGRAM, why=why, evidence=told_by, is_hopeless=True)
    signs = _signs(known, first)
    if known.case is not None:
        earlier = _before_the_fault(known, known.case, signs, first)
        return earlier or _of_case(known.case, signs)
    return (
        _of_slurm(known, code, signs)
        or _of_nodes(known, signs)
        or _of_signs(known, signs, first)
        or _of_exit(known, code, number)
    )


def _of_case(case: Case, signs: tuple[Told, ...]) -> Blame:
    what = f"{case.node} failed ({case.fault} on {case.subject})"
    return Blame(cause=cause_of(case.fault), why=what, evidence=(what, *_lines(signs)), node=case.node)


def _before_the_fault(known: Evidence, case: Case, signs: tuple[Told, ...], first: Failure | None) -> Blame | None:
    """The program's own failure, where it came before the fault was there and no hardware brings it about."""
    if known.ended_at is None:
        return None
    began = case.fault_at or case.opened_at
    failed_at = first.at if first is not None and first.kind != "peer_lost" else known.ended_at
    lead = next((sign for sign in signs if sign.sign.proves != "follow_on"), None)
    if lead is None or began <= failed_at + _LATER_S or not _is_never_hardware(lead):
        return None
    why = f"the program failed ({_what(lead)}) before {case.node} had {case.fault}"
    return Blame(cause=Cause.PROGRAM, why=why, evidence=_lines(signs))


def _is_never_hardware(found: Told) -> bool:
    if found.sign.name in _NEVER_HARDWARE:
        return True
    return found.sign.is_exception and _exception(found) in _NEVER_HARDWARE_ERRORS


def _exception(found: Told) -> str:
    """The name of an exception, without the modules that it is in."""
    return re.split(r"[:(\s]", found.line, maxsplit=1)[0].rpartition(".")[2]


def _what(found: Told) -> str:
    return f"it raised {_exception(found)}" if found.sign.is_exception else found.sign.what


def _of_slurm(known: Evidence, code: int, signs: tuple[Told, ...]) -> Blame | None:
    """What Slurm's own states say."""
    lines = _lines(signs)
    if known.was_preempted or "PREEMPTED" in known.states:
        return Blame(cause=Cause.PREEMPTION, why="a job of higher rank took its nodes", evidence=lines)
    if known.states & {"TIMEOUT", "DEADLINE"}:
        word = "time limit" if "TIMEOUT" in known.states else "deadline"
        return Blame(cause=Cause.LIMIT, why=f"it reached its {word}", evidence=lines)
    if code == EXIT_STOPPED:
        saved = known.witness.checkpoint_step if known.witness is not None else None
        where = "" if saved is None else f" at step {saved}"
        why = f"it was asked to stop and saved{where} before it ended (exit code 94)"
        cause = Cause.PREEMPTION if _lead(signs) == "preemption" else Cause.LIMIT
        return Blame(cause=cause, why=why, evidence=lines, goes_on=True)
    if "OUT_OF_MEMORY" in known.states:
        why = "it needed more memory than it had asked for (Slurm killed it)"
        return Blame(cause=Cause.PROGRAM, why=why, evidence=lines)
    if known.states & {"NODE_FAIL", "BOOT_FAIL", "LAUNCH_FAILED"}:
        node = known.down[0] if known.down else ""
        words = {"NODE_FAIL": "Slurm lost one of its nodes", "BOOT_FAIL": "a node did not boot for it"}
        word = next((text for state, text in words.items() if state in known.states), "Slurm could not launch it")
        return Blame(cause=Cause.INFRASTRUCTURE, why=word + (f" ({node})" if node else ""), evidence=lines, node=node)
    return None


def _of_nodes(known: Evidence, signs: tuple[Told, ...]) -> Blame | None:
    """What Slurm and the agents say of its nodes, where no fault was found on them."""
    lead = next((sign for sign in signs if sign.sign.proves != "follow_on"), None)
    if known.down and not (lead is not None and _is_never_hardware(lead)):
        why = f"Slurm has given up {', '.join(known.down[:3])}"
        return Blame(cause=Cause.INFRASTRUCTURE, why=why, evidence=_lines(signs), node=known.down[0])
    if known.gpu_held and any(found.sign.name == "cuda_oom" for found in signs):
        why = f"something else held the memory of a GPU of {known.gpu_held}"
        return Blame(cause=Cause.INFRASTRUCTURE, why=why, evidence=_lines(signs), node=known.gpu_held)
    return None


def _signs(known: Evidence, first: Failure | None) -> tuple[Told, ...]:
    """What the output tells, the first failing rank's own words before all."""
    lines = known.witness.lines if known.witness is not None else None
    found = [sign for sign in map(told, lines or ()) if sign is not None]
    if first is not None and first.kind != "peer_lost":
        own = told(EXCEPTION + first.error)
        if own is not None:
            own = dataclasses.replace(own, rank=first.rank, host=first.host)
            found = [own, *(sign for sign in found if sign.line != own.line)]
    return tuple(found)


def _of_signs(known: Evidence, signs: tuple[Told, ...], first: Failure | None) -> Blame | None:
    causes = [sign for sign in signs if sign.sign.proves != "follow_on"]
    # Nothing else brings these about, and what follows one of them looks like anything.
    lead = next((sign for sign in causes if sign.sign.proves == "hardware" and sign.sign.is_certain), None)
    lead = lead or next(iter(causes), None)
    evidence = _lines((lead, *(sign for sign in signs if sign is not lead)) if lead is not None else signs)
    if lead is None:
        if known.hang:
            return Blame(cause=Cause.UNKNOWN, why=known.hang, evidence=evidence, node=known.hang_node)
        if first is not None and first.kind not in ("peer_lost", ""):
            word = "its checkpoints failed" if first.kind == "checkpoint" else "its program failed"
            return _uncertain(known, Blame(cause=Cause.PROGRAM, why=f"{word} on {_of_failure(first)}"))
        if signs or (first is not None and first.kind == "peer_lost"):
            why = "only ranks that lost another one were heard, and not the one that failed first"
            return Blame(cause=Cause.UNKNOWN, why=why, evidence=evidence or _evidence_of(first))
        return None
    cause = Cause(lead.sign.proves)
    why = f"{_what(lead)}{_where(lead)}"
    found = Blame(
        cause=cause,
        why=f"the program failed: {why}" if cause is Cause.PROGRAM else why,
        evidence=evidence,
        node=lead.host if lead.sign.proves in ("hardware", "infrastructure") else "",
    )
    return found if lead.sign.is_certain or _is_never_hardware(lead) else _uncertain(known, found)


def _uncertain(known: Evidence, found: Blame) -> Blame:
    """A sign that has two explanations counts as the one that the state of the nodes agrees with."""
    if found.cause is Cause.PROGRAM and not known.unseen:
        return found
    if found.cause in (Cause.HARDWARE, Cause.INFRASTRUCTURE) and known.unseen:
        return found
    nodes = f"nothing is known of {','.join(known.unseen)}" if known.unseen else "its nodes are healthy now"
    return dataclasses.replace(found, cause=Cause.UNKNOWN, why=f"{found.why}, and {nodes}", node="")


def _of_exit(known: Evidence, code: int, number: int) -> Blame:
    """Without any word of its output: how it ended, and whether its nodes are healthy."""
    ending = f"exit code {known.exit_code or 'unknown'}"
    unread = known.witness.unread if known.witness is not None else ""
    evidence = (f"its output could not be read: {unread}",) if unread else ()
    if known.hang:
        return Blame(cause=Cause.UNKNOWN, why=known.hang, evidence=evidence, node=known.hang_node)
    if number in _KILLED_FROM_OUTSIDE:
        why = f"it was killed from outside ({_KILLED_FROM_OUTSIDE[number]}), and nothing says by whom"
        return Blame(cause=Cause.UNKNOWN, why=why, evidence=evidence)
    if code in (_NOT_EXECUTABLE, _NOT_FOUND):
        why = f"its script ran a command that is not there ({ending})"
        return Blame(cause=Cause.PROGRAM, why=why, evidence=evidence)
    if known.unseen:
        why = f"failed ({ending}) and nothing is known of {','.join(known.unseen)}"
        return Blame(cause=Cause.UNKNOWN, why=why, evidence=evidence)
    crashed = f", {_CRASHED[number]}" if number in _CRASHED else ""
    why = f"the program failed ({ending}{crashed}) and its nodes are healthy"
    return Blame(cause=Cause.PROGRAM, why=why, evidence=evidence)


def _lead(signs: tuple[Told, ...]) -> str:
    return next((sign.sign.proves for sign in signs if sign.sign.proves != "follow_on"), "")


def _where(found: Told) -> str:
    rank = f" on rank {found.rank}" if found.rank is not None else ""
    return rank + (f" ({found.host})" if found.host else "")


def _of_failure(failure: Failure) -> str:
    return f"rank {failure.rank}{f' ({failure.host})' if failure.host else ''}: {failure.error}"


def _evidence_of(failure: Failure | None) -> tuple[str, ...]:
    return () if failure is None else (_of_failure(failure),)


def _lines(signs: tuple[Told, ...]) -> tuple[str, ...]:
    said = [(f"rank {sign.rank}: " if sign.rank is not None else "") + sign.line for sign in signs]
    return tuple(dict.fromkeys(said))[:_MOST_EVIDENCE]
