"""What is left of a job's run when it has ended: the told lines of its output, and what its ranks wrote down of themselves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MOST_LINES = 24
MOST_FAILURES = 12
_LINE = 240
_ERROR = 300
_MOST_STEP = 1 << 53


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One line of `failures.jsonl` (docs/interfaces.md section 5)."""

    at: float
    rank: int
    kind: str
    """`program`, `peer_lost`, `checkpoint` or `refused`."""
    error: str = ""
    host: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Witness:
    """The agent's event `job_witness` about one run. What could not be read is None, never empty or zero."""

    restart_count: int
    at: float
    lines: tuple[str, ...] | None = None
    """Lines that `knowledge/job_signs.toml` knows, in the order of the output; None where it could not be read."""
    unread: str = ""
    """Why the output could not be read, in one sentence."""
    is_cut: bool = False
    """The output was longer than the part that was read: its beginning is not known."""
    failures: tuple[Failure, ...] | None = None
    """By time, the first first; None where there is no such file."""
    first_step: int | None = None
    """The step that the run began with."""
    last_step: int | None = None
    """The last step that it completed."""
    checkpoint_step: int | None = None
    """The newest step that was saved."""
    resumed_from: str = ""

    @property
    def first_failure(self) -> Failure | None:
        """The rank that failed first; those that only lost their peer come after it, whatever their clocks say."""
        if not self.failures:
            return None
        return min(self.failures, key=lambda failure: (failure.kind == "peer_lost", failure.at))

    @classmethod
    def from_json(cls, data: Mapping[str, Any], at: float) -> Witness:
        """Of an event's content. An agent wrote it and a user's program before: what has another shape is left out."""
        lines, failures = data.get("lines"), data.get("failures")
        return cls(
            restart_count=_whole(data.get("restart_count")) or 0,
            at=at,
            lines=tuple(str(line)[:_LINE] for line in lines[:MOST_LINES]) if isinstance(lines, list) else None,
            unread=str(data.get("unread") or "")[:_LINE],
            is_cut=data.get("is_cut") is True,
            failures=_failures(failures) if isinstance(failures, list) else None,
            first_step=_whole(data.get("first_step")),
            last_step=_whole(data.get("last_step")),
            checkpoint_step=_whole(data.get("checkpoint_step")),
            resumed_from=str(data.get("resumed_from") or "")[:_LINE],
        )


def _failures(items: list[Any]) -> tuple[Failure, ...]:
    found = []
    for item in items:
        if not isinstance(item, Mapping):
            continue
        at, rank = item.get("t"), _whole(item.get("rank"))
        if rank is None or isinstance(at, bool) or not isinstance(at, int | float) or not math.isfinite(at):
            continue
        found.append(
            Failure(
                at=float(at),
                rank=rank,
                kind=str(item.get("kind") or "")[:20],
                error=str(item.get("error") or "")[:_ERROR],
                host=str(item.get("host") or "")[:80],
            )
        )
    # Those that failed for themselves first, or a thousand that lost their peer would push the cause out.
    found.sort(key=lambda failure: (failure.kind == "peer_lost", failure.at))
    return tuple(sorted(found[:MOST_FAILURES], key=lambda failure: failure.at))


def _whole(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _MOST_STEP:
        return None
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Interruption:
    """One run of a marked job that ended before its work was done, for the story that its user reads."""

    restart_count: int
    cause: str
    """A word of `Cause`."""
    text: str
    evidence: tuple[str, ...] = ()
    """Sentences and lines of the job's own output that the judgement rests on."""
    node: str = ""
    started_at: float = 0.0
    ended_at: float | None = None
    restarts: bool = False
    """It was decided that the job starts again."""
    back_at: float | None = None
    """When the next run started."""
    last_step: int | None = None
    """The last step that the run completed."""
    saved_step: int | None = None
    """The newest checkpoint that it left."""
    resumed_step: int | None = None
    """The step that the next run went on from."""

    @property
    def lost_s(self) -> float | None:
        """Seconds from the end of the run to the start of the next; None while that is not known."""
        if self.ended_at is None or self.back_at is None:
            return None
        return max(0.0, self.back_at - self.ended_at)

    @property
    def lost_steps(self) -> int | None:
        """Steps that have to be done again; None where it is not known."""
        kept = self.resumed_step if self.resumed_step is not None else self.saved_step
        if self.last_step is None or kept is None:
            return None
        return max(0, self.last_step - kept)
