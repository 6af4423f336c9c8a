"""Which checkpoint of a directory a run goes on from."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nodewatch_train import manifest
from nodewatch_train.copies import Copy, newest_copy
from nodewatch_train.manifest import CheckpointError, Manifest, RefusedError

RESUME_FROM = "NODEWATCH_RESUME_FROM"
"""Environment variable: the checkpoint that the controller verified for this start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A verified checkpoint. is_sent_back: it was asked for although there are newer ones."""

    path: Path
    manifest: Manifest
    is_sent_back: bool = False


def choose(
    root: Path, fingerprint: str, copies: Sequence[Copy], *, environment: Mapping[str, str] = os.environ
) -> Choice | None:
    """The checkpoint to load; None to start from scratch. What is passed over is said on standard error.

    Raises RefusedError for those of another model and of a newer nodewatch.
    """
    wanted = environment.get(RESUME_FROM)
    if wanted:
        # Resolved, so that a path with a trailing slash or through a link has the name that verify looks at.
        path = Path(wanted).resolve()
        verification = manifest.verify(path)
        found = verification.manifest
        if found is not None and found.extra.get("model") == fingerprint:
            newer = [other.name for other in manifest.checkpoints(root) if manifest.step_of(other) > found.step]
            if newer:
                say(f"{RESUME_FROM} asks for {path.name}: {', '.join(newer)} in {root} are passed over")
            return Choice(path=path, manifest=found, is_sent_back=bool(newer))
        reason = verification.reason or f"{path.name} is a checkpoint of another model"
        say(f"{RESUME_FROM} is not used: {reason}; looking for the newest verified checkpoint in {root}")
    newest, skipped = manifest.newest_verified(root)
    for sentence in skipped:
        say(sentence)
    newest = newest_copy(root, newest, copies, say=say)
    if newest is None:
        if later := [path.name for path in manifest.checkpoints(root) if manifest.is_newer(path)]:
            raise RefusedError(
                f"{root} holds {later[0]} of a newer nodewatch and nothing else that verifies: update "
                "nodewatch_train here, or use another checkpoint directory"
            )
        if skipped:
            say(f"no checkpoint in {root} verifies: starting from step 0")
        return None
    found = manifest.verify(newest, checksums=False).manifest
    if found is None:
        raise CheckpointError(f"{newest} changed while it was being read: is another job writing to {root}?")
    if found.extra.get("model") != fingerprint:
        raise RefusedError(
            f"{newest} holds another model than this run's (their parameters differ in name, shape or type): "
            "use another checkpoint directory, or the configuration that wrote this one"
        )
    return Choice(path=newest, manifest=found)


def say(sentence: str) -> None:
    """A line about checkpoints on standard error."""
    print(f"checkpoint: {sentence}", file=sys.stderr, flush=True)
