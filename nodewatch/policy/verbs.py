"""What an operator asks for in a node's reason: `scontrol update node=X state=fail reason="Action:Replace"`.

The words are HyperPod's. There they must match to the letter and are ignored in silence otherwise (field notes 6.2); here case,
blanks and a final full stop do not matter, and what is not understood is answered (policy/unclear.py).
"""

from __future__ import annotations

import re

from nodewatch.model.cluster import SlurmNode
from nodewatch.model.ledger import Rung

FAMILY = "operator"
"""The fault family of what operators ask for: no finding clears it, and the node's being theirs does not stand against it."""

NOT_UNDERSTOOD = "[nodewatch: not understood; type Action:Replace or Action:Reboot]"
"""Written behind an operator's words. It must never begin a reason: the node would be taken for ours."""

_ASKED = re.compile(r"\s*action\s*:\s*(replace|reboot)\s*\.?\s*", re.IGNORECASE)
_MEANT = re.compile(r"\s*action\b|\s*(replace|reboot)\b", re.IGNORECASE)


def asked(node: SlurmNode) -> Rung | None:
    """The repair that the reason of a node out of service asks for, None when it asks for none that is plain."""
    if not (node.is_out or node.is_down):
        return None
    match = _ASKED.fullmatch(node.reason)
    return None if match is None else Rung[match.group(1).upper()]


def misunderstood(node: SlurmNode) -> str | None:
    """What to tell an operator whose reason seems to ask for a repair and is not plain; None for every other reason."""
    if not (node.is_out or node.is_down) or asked(node) is not None or not _MEANT.match(node.reason):
        return None
    return (
        f'the reason "{_words(node)}" is not understood, nothing is done: write reason="Action:Replace" or '
        'reason="Action:Reboot"'
    )


def is_answered(node: SlurmNode) -> bool:
    """Whether our answer stands in the reason already."""
    return NOT_UNDERSTOOD in node.reason


def _words(node: SlurmNode) -> str:
    """The reason as the operator typed it, without our answer."""
    return node.reason.partition(NOT_UNDERSTOOD)[0].rstrip() if is_answered(node) else node.reason
