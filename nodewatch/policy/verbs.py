"""What an operator asks for in a node's reason: `scontrol update node=X state=fail reason="Action:Replace"`.

The words are HyperPod's. There they must match to the letter and are ignored in silence otherwise (field notes 6.2); here case,
blanks and a final full stop do not matter, and what is not understood is answered.
"""

from __future__ import annotations

import re

from nodewatch.model.cluster import SlurmNode
from nodewatch.model.ledger import Rung

FAMILY = "operator"
"""The fault family of what operators ask for: no finding clears it, and the node's being theirs does not stand against it."""

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
        f'the reason "{node.reason}" is not understood, nothing is done: write reason="Action:Replace" or '
        'reason="Action:Reboot"'
    )
