"""What each rank of a training job last said of itself, and what a hang of one comes to.

The users of the cluster write these words: each is taken for what it says of its own rank and job and for nothing else, and
what is no heartbeat is unknown. docs/interfaces.md says who writes and who carries them.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

MOST_BYTES = 256
"""Of one rank's file: it is rewritten in place by one write, padded with blanks."""
MOST_RANKS = 64
"""Of one job on one node: more than any instance has accelerators (a p5 has 8, a trn2 64 logical cores)."""
MOST_JOBS = 64
"""Of one node."""
_MOST_STEP = 1 << 53
_MOST_RANK = 10_000_000
_MOST_PID = 1 << 22
"""The kernel's own limit on 64-bit machines (PID_MAX_LIMIT)."""
_MOST_S = 1e8


class Phase(enum.Enum):
    """What a rank does, as it says."""

    STEP = "step"
    SAVING = "saving"
    STARTING = "starting"
    DONE = "done"


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """The last word of one rank. Times are seconds."""

    rank: int
    step: int
    phase: Phase
    at: float = 0.0
    """When it was said, by the clock of the rank's own node, since the epoch."""
    step_s: float | None = None
    """How long its last step took, waiting for the others included."""
    compute_s: float | None = None
    """How long its own part of that step took, before it waited for anybody; None where the program does not tell."""
    pid: int | None = None
    still_s: float = 0.0
    """For how long neither step nor phase has changed, as the node's agent saw it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobBeats:
    """What one node knows of one job. `garbled` counts the files that are no heartbeats."""

    ranks: Mapping[int, Beat] = field(default_factory=dict)
    garbled: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Hang:
    """One run of a job makes no step any more. Kept in the journal; `node` is empty where none can be named."""

    job_id: int
    restart_count: int
    at: float
    """When it was judged."""
    still_s: float
    step: int
    """The lowest step of its ranks: a run that hangs twice at the same one hangs of itself."""
    text: str
    """As the job's user reads it."""
    node: str = ""
    is_acted_on: bool = True
    """Whether the job is to be ended for it; otherwise it is said and nothing more."""


def parse_beat(raw: bytes, *, rank: int) -> Beat:
    """The heartbeat in a rank's file. Raises ValueError for anything else, another rank's heartbeat among it."""
    if len(raw) > MOST_BYTES:
        raise ValueError(f"it is longer than {MOST_BYTES} bytes")
    try:
        data = json.loads(raw, parse_constant=_refuse)
    except (UnicodeDecodeError, RecursionError) as error:
        raise ValueError("it is no JSON") from error
    if not isinstance(data, Mapping) or data.get("v") != 1:
        raise ValueError("it is no heartbeat of version 1")
    if data.get("rank") != rank:
        raise ValueError(f"it speaks for rank {str(data.get('rank'))[:20]} and not for its own")
    return _beat(data, rank)


def to_message(jobs: Mapping[int, JobBeats]) -> dict[str, Any]:
    """The form in which an agent sends them."""
    return {str(job_id): _job_to_message(job) for job_id, job in sorted(jobs.items())}


def from_message(data: object) -> dict[int, JobBeats]:
    """The inverse of `to_message`. Raises ValueError for anything of another shape or size."""
    jobs = _table(data, "jobs", most=MOST_JOBS)
    found: dict[int, JobBeats] = {}
    for name, job in jobs.items():
        job_id = _name(name, most=_MOST_STEP)
        if not isinstance(job, Mapping):
            raise ValueError("a job is no table")
        ranks = _table(job.get("ranks"), "ranks", most=MOST_RANKS)
        beats = {}
        for rank_name, told in ranks.items():
            rank = _name(rank_name, most=_MOST_RANK)
            if not isinstance(told, Mapping):
                raise ValueError("a rank is no table")
            beats[rank] = _beat(told, rank)
        garbled = _whole(job, "garbled", most=1_000_000, missing=0) or 0
        found[job_id] = JobBeats(ranks=beats, garbled=garbled)
    return found


def _job_to_message(job: JobBeats) -> dict[str, Any]:
    told: dict[str, Any] = {"ranks": {str(rank): _beat_to_message(beat) for rank, beat in sorted(job.ranks.items())}}
    if job.garbled:
        told["garbled"] = job.garbled
    return told


def _beat_to_message(beat: Beat) -> dict[str, Any]:
    told: dict[str, Any] = {
        "step": beat.step,
        "t": beat.at,
        "phase": beat.phase.value,
        "still_s": round(beat.still_s, 1),
    }
    optional = {"step_s": beat.step_s, "compute_s": beat.compute_s, "pid": beat.pid}
    return told | {name: value for name, value in optional.items() if value is not None}


def _beat(data: Mapping[str, Any], rank: int) -> Beat:
    step = _whole(data, "step", most=_MOST_STEP)
    if step is None:
        raise ValueError("it names no step")
    try:
        phase = Phase(data.get("phase", "step"))
    except ValueError:
        raise ValueError(f"{str(data.get('phase'))[:20]!r} is no phase") from None
    pid = _whole(data, "pid", most=_MOST_PID)
    return Beat(
        rank=rank,
        step=step,
        phase=phase,
        at=_number(data, "t", most=1e12) or 0.0,
        step_s=_number(data, "step_s", most=_MOST_S),
        compute_s=_number(data, "compute_s", most=_MOST_S),
        # kill and py-spy read 0 and 1 as something else than a rank.
        pid=pid if pid is not None and pid > 1 else None,
        still_s=_number(data, "still_s", most=_MOST_S) or 0.0,
    )


def _number(data: Mapping[str, Any], name: str, *, most: float) -> float | None:
    value = data.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        raise ValueError(f"{name} is {str(value)[:20]}")
    return float(value)


def _whole(data: Mapping[str, Any], name: str, *, most: int, missing: int | None = None) -> int | None:
    value = data.get(name, missing)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise ValueError(f"{name} is {str(value)[:20]}")
    return value


def _table(data: object, name: str, *, most: int) -> Mapping[str, Any]:
    if not isinstance(data, Mapping) or len(data) > most:
        raise ValueError(f"{name} is no table of at most {most}")
    return data


def _name(text: object, *, most: int) -> int:
    """A number as a key: one way to write each, so that no two keys are one number."""
    if not isinstance(text, str) or not (text.isascii() and text.isdigit()) or len(text) > 16 or str(int(text)) != text:
        raise ValueError(f"{str(text)[:20]!r} is no number")
    if int(text) > most:
        raise ValueError(f"{text} is too large")
    return int(text)


def rank_of(name: str) -> int | None:
    """The rank whose file is called `name`; None for a file that is no rank's."""
    try:
        return _name(name, most=_MOST_RANK)
    except ValueError:
        return None


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number")


@dataclass(frozen=True, slots=True, kw_only=True)
class Dump:
    """Where one rank of a job that hangs is, as its node's agent found."""

    rank: int
    stacks: str = ""
    """py-spy's text, the main thread first; empty where there is none, and `said` says why."""
    said: str = ""
    state: str = ""
    """The process's state as the kernel names it: D is a wait that nothing interrupts."""
    waits_in: str = ""
    """The kernel function that its main thread waits in."""

    def to_json(self) -> dict[str, Any]:
        """The form in which it is kept as evidence: without what is empty."""
        told = {"stacks": self.stacks, "said": self.said, "state": self.state, "waits_in": self.waits_in}
        return {"rank": self.rank, **{name: value for name, value in told.items() if value}}


def dumps_of(data: Mapping[str, Any]) -> tuple[Dump, ...]:
    """The answer of an agent to `stack_dump`, cut to what may be kept. Raises ValueError for anything of another shape."""
    told = data.get("dumps")
    if not isinstance(told, list) or len(told) > MOST_RANKS:
        raise ValueError(f"dumps is no list of at most {MOST_RANKS}")
    found = []
    for item in told:
        if not isinstance(item, Mapping):
            raise ValueError("a dump is no table")
        rank = _whole(item, "rank", most=_MOST_RANK)
        if rank is None:
            raise ValueError("a dump names no rank")
        found.append(
            Dump(
                rank=rank,
                stacks=_text(item, "stacks", 2000),
                said=_text(item, "said", 300),
                state=_text(item, "state", 1),
                waits_in=_text(item, "waits_in", 80),
            )
        )
    return tuple(found)


def _text(data: Mapping[str, Any], name: str, most: int) -> str:
    value = data.get(name, "")
    if not isinstance(value, str):
        raise ValueError(f"{name} is no text")
    return value[:most]
