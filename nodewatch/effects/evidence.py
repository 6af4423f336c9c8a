"""What was known of a machine, kept before the machine is ended.

The journal holds it in any case: it stands in the record of the intended action, which is synced before anything is done.
Here EC2's console text is added where the machine never spoke for itself, and both go to S3 where a bucket is configured.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Protocol

from nodewatch.errors import Ec2Error
from nodewatch.model.actions import KeepEvidence

_CONSOLE_KEPT = 16_384
"""Characters of the console that the journal keeps. EC2 gives at most 64 KB (EC2 API reference, GetConsoleOutput)."""


class Console(Protocol):
    """Whom the console is asked of."""

    def console(self, instance_id: str) -> str:
        """The last of what an instance wrote to its console. Raises Ec2Error."""


class EvidenceStore(Protocol):
    """Where evidence outlives the controller's disk."""

    def put(self, bucket: str, name: str, body: bytes) -> str:
        """Keep `body` under `name`, the same name twice is once; returns where it is. Raises Ec2Error."""


def name_of(action: KeepEvidence) -> str:
    """The object's name: one for each case and machine, so that a second try replaces the first."""
    return f"nodewatch/evidence/{action.node}/{action.case_id}/{action.instance_id}.json"


def keep(action: KeepEvidence, ec2: Console | None, store: EvidenceStore | None) -> dict[str, Any]:
    """Carry the action out; the result is for the journal. Raises Ec2Error where S3 did not take it.

    A console that cannot be read is no failure: it is said in its place, and the rest is kept.
    """
    result: dict[str, Any] = {}
    if action.wants_console:
        result.update(_console(action.instance_id, ec2))
    if action.bucket:
        if store is None:
            raise Ec2Error(
                f"the evidence of {action.instance_id} was not put into {action.bucket}: there is no S3 client"
            )
        body = {"v": 1, "node": action.node, "case": action.case_id, "instance_id": action.instance_id}
        result["kept_at"] = store.put(action.bucket, name_of(action), to_bytes({**body, **action.evidence, **result}))
    return result


def to_bytes(document: Mapping[str, Any]) -> bytes:
    """The document as it is kept: JSON that a human can read; what JSON does not know is written as text."""
    return (json.dumps(document, indent=1, sort_keys=True, default=str) + "\n").encode()


def _console(instance_id: str, ec2: Console | None) -> dict[str, Any]:
    if ec2 is None:
        return {"console_error": "EC2 is not configured"}
    try:
        text = ec2.console(instance_id)
    except Ec2Error as error:
        return {"console_error": str(error)}
    return {"console": text[-_CONSOLE_KEPT:]}
