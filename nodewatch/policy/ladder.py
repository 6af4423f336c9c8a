"""Which rung a fault starts on, and which comes after one that did not help."""

from __future__ import annotations

from collections.abc import Iterable

from nodewatch.model.health import Finding, Remedy, Severity
from nodewatch.model.ledger import Case, Rung
from nodewatch.policy.history import identities, is_lemon
from nodewatch.policy.rules import Rules
from nodewatch.policy.verbs import FAMILY

_BY_REMEDY = {
    Remedy.NONE: Rung.OBSERVE,
    Remedy.RESTART_APP: Rung.OBSERVE,
    Remedy.RESTART_SERVICE: Rung.DRAIN,
    Remedy.RESET_GPU: Rung.RESET_GPU,
    Remedy.REBOOT: Rung.REBOOT,
    Remedy.REPLACE: Rung.REPLACE,
    Remedy.HUMAN: Rung.HUMAN,
}


def first_rung(finding: Finding, rules: Rules) -> Rung:
    """Where the repair of `finding` starts: the site's word for its fault, else its own remedy.

    A finding below DEGRADED never leaves OBSERVE, whatever its remedy: warnings only count.
    """
    if finding.severity < Severity.DEGRADED:
        return Rung.OBSERVE
    word = rules.first_rung.get(finding.fault)
    rung = Rung[word.upper()] if word is not None else _BY_REMEDY[finding.remedy]
    # Impaired is impaired even where no repair is known: it leaves service, and a human is told.
    return max(rung, Rung.DRAIN)


def rung_after(rung: Rung) -> Rung:
    """The next rung of the ladder; HUMAN is the last."""
    if rung is Rung.DRAIN:
        return Rung.REBOOT
    return Rung(min(rung + 1, Rung.HUMAN))


def opening_rung(
    finding: Finding, node: str, history: Iterable[Case], rules: Rules, now: float, *, instance: str = ""
) -> Rung:
    """The rung on which a new case opens: one above what was tried for this node and family not long ago.

    Hardware that had `lemon_cases` cases is not tried again, by whatever name: it is replaced, or left to a human where it
    cannot be. `instance` is the machine that the finding is about.

    A replaced machine is other hardware: what was tried on its predecessor does not count against it, except that a
    replacement which did not help is itself a try of REPLACE.
    """
    rung = first_rung(finding, rules)
    history = tuple(history)
    if finding.family == FAMILY:
        # An operator who asks for a second reboot means a reboot.
        return rung
    tried = [
        step
        for case in history
        if case.node == node
        and case.family == finding.family
        and not case.is_open
        and now - case.step_at <= rules.relapse_window_s
        for step in case.tried
        if step < Rung.REPLACE
    ]
    while rung in tried and rung < Rung.REPLACE:
        rung = rung_after(rung)
    if Rung.OBSERVE < rung < Rung.REPLACE and finding.family not in rules.shared_families:
        hardware = identities(instance, finding.subject, finding.evidence)
        if is_lemon(hardware, history, rules, now):
            group = rules.group_of(node)
            return Rung.REPLACE if group is not None and group.has_ec2 else Rung.HUMAN
    return rung
