"""Why a machine that was launched did not become a node: what is known of it, and from whom. Pure.

Four ways to fail, told apart by who was heard: nobody (`never_registered`), nobody but the console or the agent says that the
lifecycle script failed (`lifecycle_script`), the agent but not slurmd (`slurmd_not_registered`), both, and the deep checks
found something (`deep_checks`). The console is read while it boots and again before it is given up, so that its last words
stand in the journal.
"""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Mapping
from typing import Any

from nodewatch.model.actions import KeepEvidence
from nodewatch.model.cluster import Snapshot
from nodewatch.model.ledger import Case, Ledger
from nodewatch.policy.attempts import due
from nodewatch.policy.rules import Rules

MARK = "nodewatch bootstrap:"
"""Lines of packaging/bootstrap begin so; the last of them on a console counts, since the script may be run again."""
FAILED = f"{MARK} FAILED:"

_MOST_TRIES = 10
_MOST_TEXT = 300


class Cause(enum.Enum):
    """How far a launched machine did not come."""

    NEVER_REGISTERED = "never_registered"
    LIFECYCLE_SCRIPT = "lifecycle_script"
    SLURMD = "slurmd_not_registered"
    DEEP_CHECKS = "deep_checks"
    HARDWARE = "same_hardware"
    ENDED = "ended"
    """EC2 ended or stopped it, or does not know it."""

    @property
    def words(self) -> str:
        """As an operator reads it."""
        return _WORDS[self]


_WORDS = {
    Cause.NEVER_REGISTERED: "never registered",
    Cause.LIFECYCLE_SCRIPT: "lifecycle script failed",
    Cause.SLURMD: "slurmd not registered",
    Cause.DEEP_CHECKS: "deep checks failed",
    Cause.HARDWARE: "the same hardware",
    Cause.ENDED: "ended by EC2",
}

# What a console says of a boot that ended early; the first that is found is told. cloud-init's are those of its subp.runparts
# and scripts modules, systemd's those of its emergency mode, the others the kernel's.
_SCRIPT = (
    re.compile(r"Failed running (?P<what>\S{1,200} \[-?\d+\])"),
    re.compile(r"(?P<what>Runparts: \d+ failures.{0,150})"),
)
_BOOT = (
    (re.compile(r"(Kernel panic - not syncing[^\r\n]{0,150})"), "{}"),
    (
        re.compile(r"(You are in emergency mode|Entering emergency mode)"),
        "it is in emergency mode: a mount or a unit failed",
    ),
    (re.compile(r"(?m)^\S+ login: *$"), "it booted to its login prompt: nothing has started the agent"),
)


def script_failure(case: Case, ledger: Ledger) -> str | None:
    """Why the lifecycle script of the case's new machine failed, by its own word; None where it does not say so."""
    known = ledger.agents.get(case.node)
    if known is not None and known.instance_id == case.new_instance and known.bootstrap:
        return known.bootstrap
    said = [line for line in console(case, ledger).splitlines() if MARK in line]
    if not said or FAILED not in said[-1]:
        return None
    return said[-1].partition(FAILED)[2].strip()[:_MOST_TEXT] or "it does not say why"


def unheard(case: Case, snapshot: Snapshot, ledger: Ledger) -> tuple[Cause, str]:
    """Why nobody was heard from the new machine, as far as it is known."""
    own = script_failure(case, ledger)
    if own is not None:
        return Cause.LIFECYCLE_SCRIPT, own
    text = console(case, ledger)
    for pattern in _SCRIPT:
        found = pattern.search(text)
        if found is not None:
            return Cause.LIFECYCLE_SCRIPT, found["what"].strip()
    node = snapshot.nodes.get(case.node)
    known = []
    if node is not None and node.is_responding and node.slurmd_started_at not in (0.0, case.old_slurmd):
        known.append("slurmd has registered, the agent was not heard")
    for pattern, words in _BOOT:
        found = pattern.search(text)
        if found is not None:
            known.append(words.format(found[0]))
            break
    else:
        known.append("its console says nothing of it" if text else _no_console(case, ledger))
    return Cause.NEVER_REGISTERED, "; ".join(known)


def look(case: Case, ledger: Ledger, rules: Rules, now: float) -> KeepEvidence | None:
    """The reading of a booting machine's console that is due now, if one is."""
    number = int((now - case.step_at) // rules.console_every_s) if rules.console_every_s > 0 else 0
    return _reading(case, str(number), ledger, rules, now) if number > 0 else None


def last_look(case: Case, ledger: Ledger, rules: Rules, now: float) -> KeepEvidence | None:
    """The reading of the console before the machine is given up; None once it was done."""
    return _reading(case, "end", ledger, rules, now)


def console(case: Case, ledger: Ledger) -> str:
    """The newest console of the case's new machine, empty where none was read."""
    result = _newest(case, ledger)
    return str(result.get("console") or "") if result is not None else ""


def noted(case: Case, cause: Cause, said: str, now: float) -> Case:
    """The case with one more try that failed, and why."""
    one = {"instance": case.new_instance, "cause": cause.value, "said": said[:_MOST_TEXT], "at": now}
    return dataclasses.replace(case, evidence={**case.evidence, "tries": [*tries(case), one][-_MOST_TRIES:]})


def tries(case: Case) -> list[Mapping[str, Any]]:
    """The machines that were launched for the case in vain, oldest first: instance, cause, said, at."""
    told = case.evidence.get("tries")
    return [one for one in told if isinstance(one, Mapping)] if isinstance(told, list | tuple) else []


def words_of(one: Mapping[str, Any]) -> str:
    """A failed try as an operator reads it."""
    said = f" ({one['said']})" if one.get("said") else ""
    return f"{one.get('instance') or 'a machine'}: {cause_of(one)}{said}"


def cause_of(one: Mapping[str, Any]) -> str:
    """The cause of a failed try in words."""
    value = str(one.get("cause"))
    return next((cause.words for cause in Cause if cause.value == value), value)


def last_failure(ledger: Ledger) -> str:
    """The newest failed try of any case in words, empty where there is none."""
    found = [(float(one.get("at") or 0.0), words_of(one)) for case in ledger.cases.values() for one in tries(case)]
    return max(found)[1] if found else ""


def _reading(case: Case, number: str, ledger: Ledger, rules: Rules, now: float) -> KeepEvidence | None:
    action = KeepEvidence(
        key=f"{_prefix(case)}{number}",
        node=case.node,
        instance_id=case.new_instance,
        case_id=case.case_id,
        bucket="",
        wants_console=True,
    )
    return action if due(action, ledger, rules, now) else None


def _prefix(case: Case) -> str:
    return f"{case.case_id}:{case.rung.word}:console:{case.new_instance}:"


def _newest(case: Case, ledger: Ledger) -> Mapping[str, Any] | None:
    prefix = _prefix(case)
    records = [record for key, record in ledger.actions.items() if key.startswith(prefix) and record.result]
    return max(records, key=lambda record: record.at).result if records else None


def _no_console(case: Case, ledger: Ledger) -> str:
    result = _newest(case, ledger)
    error = result.get("console_error") if result is not None else None
    return f"its console could not be read: {error}" if error else "its console is empty"
