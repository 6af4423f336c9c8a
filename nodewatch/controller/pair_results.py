"""What the output of one run of two nodes amounts to, by the checks of NCCL."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass

from nodewatch.checks.nccl_bandwidth import Thresholds, nccl_bandwidth
from nodewatch.checks.nccl_run import nccl_run
from nodewatch.checks.nccl_wrong import nccl_wrong
from nodewatch.errors import SensorError
from nodewatch.knowledge import efa, instance_types
from nodewatch.model.fabric_samples import NcclRun, NcclSample
from nodewatch.model.health import Finding, Severity
from nodewatch.model.pairs import PairResult
from nodewatch.sensors.recorded.nccl import parse

_TAKEN = re.compile(
    r"(?:salloc|srun): .*(?:Requested nodes are busy|Immediate execution impossible|allocation \S+ has been revoked|"
    r"Unable to allocate resources: .*timed out|currently unavailable)",
    re.IGNORECASE,
)
"""What Slurm says of nodes that somebody else got first."""
_FIRST_RANK = re.compile(r"^[^\n#]{0,80}#\s+Rank\s+0\s", re.MULTILINE)
_MOST_SHOWN = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class PairEnded:
    """How the command of one pair ended. `cancelled` says for whose sake it was; `is_late` that it met its deadline."""

    nodes: tuple[str, str]
    text: str
    returncode: int
    is_late: bool = False
    cancelled: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What it came to; the numbers are those that were judged."""

    result: PairResult
    why: str = ""
    size: int | None = None
    busbw_gbps: float | None = None
    floor_gbps: float | None = None
    floor_source: str = ""


def outcome_of(ended: PairEnded, *, instance_type: str, gpus: int | None, floor_gbps: float = 0.0) -> Outcome:
    """GOOD only for one whole run of both nodes, without a wrong value, at or above a floor.

    Only a run that is known to have begun on both can be bad: whatever kept the program from starting there is no fault of
    their GPUs or of the way between them. `floor_gbps` above 0 takes the place of the table's floor.
    """
    if ended.cancelled:
        return Outcome(result=PairResult.GAVE_WAY, why=ended.cancelled)
    has_begun = _FIRST_RANK.search(ended.text) is not None
    taken = _TAKEN.search(ended.text)
    if taken and not has_begun:
        return Outcome(result=PairResult.GAVE_WAY, why=_shown(taken[0]))
    try:
        sample = parse(ended.text.encode(), instance_type=instance_type)
    except SensorError:
        return _unknown(f"it ended with status {ended.returncode} and no table ({_last_line(ended.text)})")
    if len(_FIRST_RANK.findall(ended.text)) > 1:
        return _unknown(
            "each rank ran alone: build nccl-tests with MPI=1, and set [pairs] mpi to what it was built for"
        )
    hosts = {host for run in sample.runs for host in run.hosts}
    if len(hosts) != 2 or len(sample.runs) != 1:
        return _unknown(f"it did not begin on both nodes ({_last_line(ended.text)})")
    try:
        return _judged(ended, sample, sample.runs[0], gpus, floor_gbps)
    except SensorError as error:
        return _unknown(str(error))


def _judged(ended: PairEnded, sample: NcclSample, run: NcclRun, gpus: int | None, floor_gbps: float) -> Outcome:
    wrong = next(iter(nccl_wrong(sample)), None)
    if wrong is not None:
        return Outcome(result=PairResult.WRONG, why=f"wrong values by size: {wrong.evidence['wrong_by_bytes']}")
    if ended.is_late:
        return Outcome(result=PairResult.HUNG, why="it had begun and did not end before its deadline")
    failed = next((found for found in nccl_run(sample) if found.severity >= Severity.DEGRADED), None)
    if failed is not None:
        result = PairResult.HUNG if failed.fault == "nccl.hung" else PairResult.FAILED
        return Outcome(result=result, why=_shown(str(failed.evidence["said"][0])))
    if ended.returncode != 0 and not run.is_below_asked:
        return _unknown(f"it ended with status {ended.returncode} ({_last_line(ended.text)})")
    if gpus is not None and run.ranks != 2 * gpus:
        return _unknown(f"{run.ranks} ranks took part instead of {2 * gpus}")
    if run.collective != "all_reduce":
        return _unknown(f"it was {run.collective or 'an unknown collective'}, floors are known for all_reduce")
    return _held_against_floor(sample, run, floor_gbps)


def _held_against_floor(sample: NcclSample, run: NcclRun, floor_gbps: float) -> Outcome:
    speeds = {row.size: row.slower for row in run.rows if row.slower is not None}
    if not speeds:
        return _unknown("no size was measured")
    largest = max(speeds)
    if floor_gbps > 0:
        return Outcome(
            result=PairResult.SLOW if speeds[largest] < floor_gbps else PairResult.GOOD,
            size=largest,
            busbw_gbps=speeds[largest],
            floor_gbps=floor_gbps,
            floor_source="configuration",
        )
    row = efa.TABLE.across.get(sample.instance_type)
    expected = instance_types.expected_gpus(sample.instance_type)
    if row is None or row.machines != 2 or expected is None or run.ranks != 2 * expected:
        kind = sample.instance_type or "these nodes (their group has no instance_type)"
        measured = _unknown(
            f"no floor is known for two of {kind}: {speeds[largest]:g} GB/s was measured, set [pairs] floor_gbps"
        )
        return dataclasses.replace(measured, size=largest, busbw_gbps=speeds[largest])
    slow = next((found for found in nccl_bandwidth(sample, Thresholds()) if _is_slow(found)), None)
    if slow is not None:
        told = slow.evidence
        return Outcome(
            result=PairResult.SLOW,
            size=told["bytes"],
            busbw_gbps=told["busbw_gbps"],
            floor_gbps=told["floor_gbps"],
            floor_source=told["floor_source"],
        )
    below = [(size, least) for size, least in row.floor if size <= largest]
    if not below:
        return _unknown(f"the largest size was {largest} bytes, below all that a floor is known for")
    return Outcome(
        result=PairResult.GOOD,
        size=largest,
        busbw_gbps=speeds[largest],
        floor_gbps=below[-1][1],
        floor_source=row.source,
    )


def _is_slow(found: Finding) -> bool:
    return found.fault == "nccl.slow_between"


def _unknown(why: str) -> Outcome:
    return Outcome(result=PairResult.UNKNOWN, why=_shown(why))


def _shown(text: str) -> str:
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."


def _last_line(text: str) -> str:
    said = text.strip().splitlines()
    return _shown(said[-1].strip()) if said else "it said nothing"
