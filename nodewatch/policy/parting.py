"""Before a machine goes: what was known of it is kept, EC2 is told, and only then is it ended or put into quarantine."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from nodewatch.model import actions as act
from nodewatch.model.cluster import Snapshot
from nodewatch.model.health import Severity
from nodewatch.model.ledger import ActionState, Case, Ledger, Rung, Step
from nodewatch.policy.attempts import blocked, due
from nodewatch.policy.history import identities
from nodewatch.policy.rules import Group, Rules
from nodewatch.policy.verbs import FAMILY

_MOST_FINDINGS = 50
_NOTE = "parting"

# EC2's reason codes (EC2 API reference, ReportInstanceStatus), by the family of the fault.
_REASONS = {
    "node": "unresponsive",
    "fabric": "performance-network",
    "efa": "performance-network",
    "ib": "performance-network",
    "nvme": "performance-instance-store",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Parting:
    """Actions that come before the end of a machine, and why it may not be ended yet; neither: it may."""

    actions: tuple[act.Action, ...] = ()
    held: str = ""
    said: str = ""
    """What went wrong and is not waited for."""


def noted(case: Case, said: str) -> Case:
    """The case with what went wrong before the end of its machine, said once: the words of an error change from try to try."""
    if not said or case.evidence.get(_NOTE):
        return case
    return dataclasses.replace(case, evidence={**case.evidence, _NOTE: said[:300]})


def note_of(case: Case) -> str:
    """What went wrong before the end of the case's machine and was not waited for, empty where nothing did."""
    return str(case.evidence.get(_NOTE) or "")


def document(case: Case, snapshot: Snapshot, ledger: Ledger) -> dict[str, Any]:
    """All that is known of the machine that the case is about to end, as JSON."""
    view = snapshot.agents.get(case.node)
    known = ledger.agents.get(case.node)
    is_its_word = view is not None and view.instance_id in ("", case.old_instance)
    prefix = f"{case.case_id}:"
    return {
        "case": {
            "fault": case.fault,
            "subject": case.subject,
            "severity": case.severity.word,
            "opened_at": case.opened_at,
            "fault_at": case.fault_at,
            "rung": case.rung.word,
            "attempt": case.attempt,
            "tried": [rung.word for rung in case.tried],
            "why": case.why,
            "evidence": dict(case.evidence),
        },
        "machine": {
            "instance_id": case.old_instance,
            "boot_id": case.old_boot,
            "hardware": list(case.old_hardware),
            "was_heard": known is not None and known.instance_id == case.old_instance,
        },
        # Kernel lines and DCGM's output stand in the evidence of the findings that were made from them.
        "findings": [
            standing.to_json()
            for standing in (view.verdict.findings[:_MOST_FINDINGS] if view is not None and view.verdict else ())
        ]
        if is_its_word
        else [],
        "deep_checks": [
            {"at": answer.at, "passed": answer.passed, "faults": list(answer.faults), "doubts": list(answer.doubts)}
            for key, answer in sorted(ledger.validations.items())
            if key.startswith(prefix)
        ],
        "gpu_resets": [
            {"done": done, "said": said}
            for key, (done, said) in sorted(ledger.resets.items())
            if key.startswith(prefix)
        ],
    }


def before_the_end(case: Case, snapshot: Snapshot, ledger: Ledger, rules: Rules, now: float) -> Parting:
    """What is still to be done before the old machine of `case` may be ended."""
    report = _report(case, ledger, rules)
    keep = _keep(case, snapshot, ledger, rules)
    wanted = [action for action in (keep, report) if action is not None]
    actions = tuple(action for action in wanted if due(action, ledger, rules, now))
    said = ""
    if keep is not None and not ledger.is_done(keep.key):
        record = ledger.actions.get(keep.key)
        error = record.error if record is not None else ""
        if record is not None and now - case.step_at > rules.evidence_wait_s:
            # A bucket that is gone must not keep a broken machine in the cluster's way; the journal has it all.
            said = f"the evidence of {case.old_instance} stands in the journal alone: {error or 'S3 gave no answer'}"
            actions = tuple(action for action in actions if action is not keep)
        elif not actions:
            return Parting(held=blocked(keep.key, ledger, rules, now) or "waiting for the evidence to be kept")
    return Parting(actions=actions, said=said)


def _keep(case: Case, snapshot: Snapshot, ledger: Ledger, rules: Rules) -> act.KeepEvidence | None:
    # The journal has the console of a machine that was launched in vain already (policy/bootstrap.py).
    if not case.old_instance or not rules.evidence_bucket:
        return None
    return act.KeepEvidence(
        key=f"{case.case_id}:{case.rung.word}:evidence:{case.old_instance}",
        node=case.node,
        instance_id=case.old_instance,
        case_id=case.case_id,
        bucket=rules.evidence_bucket,
        wants_console=case.attempt > 1 or case.family == "node",
        evidence=document(case, snapshot, ledger),
    )


def _report(case: Case, ledger: Ledger, rules: Rules) -> act.ReportInstance | None:
    """EC2 is told once; a refusal changes nothing for us. Only a fault that is fatal and the machine's own is confirmed."""
    is_confirmed = (
        case.severity >= Severity.FATAL
        and case.family not in (*rules.shared_families, FAMILY, "ec2")
        and case.rung is Rung.REPLACE
        and case.attempt == 1
    )
    if not rules.report_to_aws or not case.old_instance or not is_confirmed:
        return None
    key = f"{case.case_id}:{case.rung.word}:report:{case.old_instance}"
    record = ledger.actions.get(key)
    if record is not None and record.state is ActionState.FAILED:
        return None
    return act.ReportInstance(
        key=key,
        node=case.node,
        instance_id=case.old_instance,
        reason_code=_REASONS.get(case.family, "other"),
        text=f"{case.fault} on {case.subject}; tried before: {', '.join(r.word for r in case.tried) or 'nothing'}",
    )


def end_of(
    case: Case, snapshot: Snapshot, ledger: Ledger, group: Group | None
) -> act.Terminate | act.Quarantine | None:
    """The end of the old machine; None where there is none to end, and once it was done. Never the successor itself."""
    if not case.old_instance or case.old_instance == case.new_instance:
        return None
    instance = snapshot.instances.get(case.old_instance)
    if instance is not None and not instance.is_alive:
        return None
    key = f"{case.case_id}:{case.rung.word}"
    evidence = document(case, snapshot, ledger)
    action: act.Terminate | act.Quarantine
    if group is not None and group.on_replace == "quarantine" and case.attempt == 1:
        action = act.Quarantine(
            key=f"{key}:quarantine:{case.old_instance}",
            node=case.node,
            instance_id=case.old_instance,
            case_id=case.case_id,
            stops=group.quarantine_stops,
            evidence=evidence,
        )
    else:
        # Machines that were launched in vain are no evidence worth their price.
        action = act.Terminate(
            key=f"{key}:terminate:{case.old_instance}", node=case.node, instance_id=case.old_instance, evidence=evidence
        )
    return None if ledger.is_done(action.key) else action


def why_slot_is_taken(case: Case, snapshot: Snapshot, ledger: Ledger, rules: Rules, now: float) -> str | None:
    """Why a slot that the old machine held cannot be launched into yet; None when it is free.

    EC2 gives the slot of a capacity block back only when the instance has left shutting-down, minutes after its end was
    asked for (field notes 9).
    """
    if not case.old_instance:
        return None
    instance = snapshot.instances.get(case.old_instance)
    if instance is not None:
        if instance.state == "terminated":
            return None
        return f"{case.old_instance} is {instance.state}: its slot returns when it is terminated"
    record = ledger.actions.get(f"{case.case_id}:{case.rung.word}:terminate:{case.old_instance}")
    if record is None or record.state is not ActionState.DONE:
        return f"{case.old_instance} is not ended yet"
    left = record.at + rules.ec2_settle_s - now
    if left > 0:
        return f"EC2 does not show {case.old_instance} any more: {left:.0f} s until its slot is taken to be free"
    return None


def other_between(case: Case, group: Group, ledger: Ledger) -> Case | None:
    """The case of the same group that has ended its machine and has no new one yet, or that may do so before this one."""
    others = [
        other
        for other in ledger.open_cases
        if other.step is Step.LAUNCHING and other.case_id != case.case_id and group.holds(other.node)
    ]
    begun = [other for other in others if _has_ended_its_own(other, ledger)]
    if begun:
        return begun[0]
    if _has_ended_its_own(case, ledger):
        return None
    return next((o for o in others if (o.opened_at, o.case_id) < (case.opened_at, case.case_id)), None)


def _has_ended_its_own(case: Case, ledger: Ledger) -> bool:
    return f"{case.case_id}:{case.rung.word}:terminate:{case.old_instance}" in ledger.actions


def same_hardware(case: Case, ledger: Ledger) -> tuple[str, str]:
    """(`different`, `same` or `unknown`, the sentence) of the new machine's hardware against the old one's."""
    known = ledger.agents.get(case.node)
    new = frozenset(known.hardware) if known is not None and known.instance_id == case.new_instance else frozenset()
    old = frozenset(case.old_hardware) | identities("", case.subject, case.evidence)
    if not new or not old:
        silent = (case.new_instance if not new else case.old_instance) or "the old machine"
        return "unknown", f"whether the hardware is another cannot be told: {silent} gave no GPU identities"
    shared = sorted(new & old)
    if shared:
        return "same", f"{case.new_instance} has the same hardware as {case.old_instance}: {', '.join(shared[:3])}"
    return "different", f"{case.new_instance} has other hardware than {case.old_instance}"
