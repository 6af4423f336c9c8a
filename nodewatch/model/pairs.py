"""Pair tests: NCCL between two nodes at a time, what each run came to, and which node they name."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nodewatch.model.health import Finding

JOB_NAME = "nodewatch-pair"
"""The name of a pair test's job in Slurm: what waits under it is ours, and what is left under it is cancelled."""


class PairResult(enum.Enum):
    """What one run of one pair came to."""

    GOOD = "good"
    """Both took part, it ended, no value was wrong, and the speed reached its floor."""
    SLOW = "slow"
    FAILED = "failed"
    HUNG = "hung"
    WRONG = "wrong"
    """It computed wrong values."""
    UNKNOWN = "unknown"
    """It proves nothing: started wrongly, cut off, or no floor is known to hold it against."""
    GAVE_WAY = "gave_way"
    """It was ended, or could not begin, for the sake of a job."""

    @property
    def is_bad(self) -> bool:
        """Whether something is wrong with one of the two or with the way between them."""
        return self in (PairResult.SLOW, PairResult.FAILED, PairResult.HUNG, PairResult.WRONG)


@dataclass(frozen=True, slots=True, kw_only=True)
class PairRun:
    """One run that ended. `machines` names, by node, the machine and boot that ran it."""

    nodes: tuple[str, str]
    result: PairResult
    at: float
    round: int = 1
    """1 where neither node had been tried, else 2: one of them was known to be good."""
    why: str = ""
    size: int | None = None
    """Bytes of the size that was judged."""
    busbw_gbps: float | None = None
    floor_gbps: float | None = None
    floor_source: str = ""
    machines: Mapping[str, str] = field(default_factory=dict)

    def other(self, node: str) -> str:
        """The partner of `node`."""
        return self.nodes[1] if self.nodes[0] == node else self.nodes[0]

    def to_json(self) -> dict[str, Any]:
        """The form kept in the journal."""
        return {
            "nodes": list(self.nodes),
            "result": self.result.value,
            "round": self.round,
            "why": self.why,
            "size": self.size,
            "busbw_gbps": self.busbw_gbps,
            "floor_gbps": self.floor_gbps,
            "floor_source": self.floor_source,
            "machines": dict(self.machines),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], at: float) -> PairRun:
        """The inverse of `to_json`. Raises KeyError or ValueError when `data` is not one."""
        first, second = data["nodes"]
        return cls(
            nodes=(str(first), str(second)),
            result=PairResult(data["result"]),
            at=at,
            round=int(data["round"]),
            why=str(data["why"]),
            size=data["size"],
            busbw_gbps=data["busbw_gbps"],
            floor_gbps=data["floor_gbps"],
            floor_source=str(data["floor_source"]),
            machines={str(node): str(machine) for node, machine in data["machines"].items()},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PairJudgement:
    """What a whole test came to. Nobody is blamed where `culprits` is empty; `why` says what that means."""

    culprits: Mapping[str, Finding]
    good: tuple[str, ...]
    """Nodes with at least one good run."""
    untold: tuple[str, ...]
    """Nodes of which nothing was proved."""
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PairTest:
    """One test of some nodes: its runs so far, and its judgement once it has ended."""

    key: str
    nodes: tuple[str, ...]
    at: float
    by: str
    """Who asked; `sweep` when it was due."""
    runs: tuple[PairRun, ...] = ()
    judgement: PairJudgement | None = None
    ended_at: float | None = None
    is_withdrawn: bool = False

    @property
    def is_open(self) -> bool:
        """Neither judged nor withdrawn."""
        return self.judgement is None and not self.is_withdrawn


@dataclass(frozen=True, slots=True, kw_only=True)
class Culprit:
    """A node that a pair test named, on the machine and boot that it was named for."""

    node: str
    machine: str
    finding: Finding
    at: float


def machine_id(instance_id: str, boot_id: str) -> str:
    """One boot of one machine: what was measured holds for no other."""
    return f"{instance_id}/{boot_id}"
