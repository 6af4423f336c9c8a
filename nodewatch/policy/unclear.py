"""Reasons that seem to ask for a repair and are not plain: said by `nodewatch plan`, and answered once where they were typed.

The answer keeps the operator's words and the node's state. HyperPod ignores such words in silence (field notes 6.2).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

from nodewatch.model.actions import AnswerReason
from nodewatch.model.cluster import SlurmNode, Snapshot
from nodewatch.model.ledger import Ledger
from nodewatch.model.plan import Held
from nodewatch.policy import guards, verbs
from nodewatch.policy.attempts import due
from nodewatch.policy.rules import Rules

_MOST_BYTES = 255
"""Slurm's database keeps no longer reason: `reason` of its table of events is a TINYTEXT (accounting_storage/mysql)."""
_AGAIN_S = 3600.0
"""The same words, typed again on the same node, are answered again in another hour. Ours: a Slurm that does not keep the
answer is asked so often at most."""
_TO_US = re.compile(r"\s*action(?:\s*[:;=]|[\s_-]*re(?:pl|pa|b|se|st))", re.IGNORECASE)
"""`Action: Replce`, `action=reboot`, `Action replace please`; not `action required: PSU of rack 7`."""


def look(snapshot: Snapshot, ledger: Ledger, rules: Rules, now: float) -> Iterator[AnswerReason | Held]:
    """What to say of each such reason, and the answers that are due."""
    for node in snapshot.with_reason:
        why = None if node.is_ours else verbs.misunderstood(node)
        if why is None:
            continue
        yield Held(subject=node.name, why=why)
        if not _is_for_us(node, rules) or guards.paused(node.name, ledger, snapshot, rules, now) is not None:
            continue
        words = hashlib.sha256(node.reason.encode(errors="replace")).hexdigest()[:12]
        action = AnswerReason(
            key=f"unclear:{node.name}:{words}:{int(now // _AGAIN_S)}",
            node=node.name,
            was=node.reason,
            reason=answered(node.reason),
        )
        if due(action, ledger, rules, now):
            yield action


def answered(reason: str) -> str:
    """`reason` with our answer behind it; of words that are too long the beginning."""
    words = reason.strip()
    room = _MOST_BYTES - len(verbs.NOT_UNDERSTOOD) - 1
    if len(words.encode(errors="replace")) > room:
        words = words.encode(errors="replace")[: room - 3].decode(errors="ignore").rstrip() + "..."
    return f"{words} {verbs.NOT_UNDERSTOOD}"


def _is_for_us(node: SlurmNode, rules: Rules) -> bool:
    """Whether the words are an action's, of a node that it could be done to, and have no answer yet."""
    if rules.group_of(node.name) is None or node.is_in_maintenance:
        return False
    return _TO_US.match(node.reason) is not None and not verbs.is_answered(node)
