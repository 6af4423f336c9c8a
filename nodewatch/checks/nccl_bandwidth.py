"""NCCL all-reduce slower than the machine's type must reach.

Judged is the bus bandwidth by message size, foremost at the largest; the average that the tool prints mixes latency-
bound sizes with the rest and is not looked at. The floors of one machine, and their sources, stand in
knowledge/instance_types.toml; those of pairs in knowledge/efa.toml. What no floor is known for is measured and not
judged. Where NVSwitch sums by itself (NVLink SHARP), a run that is as fast as the links allow without it may have it
switched off (NCCL_NVLS_ENABLE, NCCL_ALGO, an older NCCL): that warns, and is no reason to reboot anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from nodewatch.checks._api import Phase, check
from nodewatch.errors import SensorError
from nodewatch.knowledge import efa, instance_types
from nodewatch.model.fabric_samples import NcclRun, NcclSample
from nodewatch.model.health import Finding, Remedy, Severity


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """`floor_share` scales every floor; `floor_gbps` above 0 takes the place of them all, at the largest size of one
    machine."""

    floor_share: float = 1.0
    """The table's floors already lie 5 to 20 % below what was published: 1.0 takes them as they are."""
    floor_gbps: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Floor:
    sizes: tuple[tuple[int, float], ...]
    why: str
    source: str
    least: tuple[tuple[int, float], ...] = ()
    """What is reached with NVLink SHARP switched off; empty where there is none."""


@check(reads=NcclSample, phases=Phase.DEEP, every_s=3600.0, thresholds=Thresholds)
def nccl_bandwidth(sample: NcclSample, thresholds: Thresholds) -> Iterator[Finding]:
    """`nccl.slow` for one machine, `nccl.slow_between` for several; `nccl.fewer_gpus` where not all GPUs took part.

    `nccl.slow` only warns while the run is as fast as NVLink without the switches' own sums.

    `nccl.below_asked` warns of a run that was itself told what average to reach and missed it.

    Raises SensorError for a run that was cut off, and for a slow run that does not say where it ran, when no other is
    slow.
    """
    unknown: str | None = None
    clean = True
    for run in sample.runs:
        if run.is_below_asked:
            yield _below_asked(run)
        try:
            found = _judge(run, sample.instance_type, thresholds)
        except SensorError as error:
            unknown = unknown or str(error)
            continue
        if found is not None:
            clean = clean and found.severity <= Severity.WARN
            yield found
    if clean and unknown is not None:
        raise SensorError(unknown)


def _judge(run: NcclRun, instance_type: str, thresholds: Thresholds) -> Finding | None:
    row = instance_types.TABLE.get(instance_type)
    if row is None and thresholds.floor_gbps <= 0:
        return None
    if not run.is_finished or run.unreadable or not run.rows:
        raise SensorError("the NCCL run was cut off: its largest size is not known, run it again")
    if run.collective not in ("all_reduce", ""):
        return None
    if len(run.hosts) > 1:
        return _between(run, instance_type, thresholds)
    if row is not None and run.ranks is not None and run.ranks < row.gpus:
        return Finding(
            fault="nccl.fewer_gpus",
            subject=_subject(run),
            severity=Severity.WARN,
            remedy=Remedy.HUMAN,
            evidence={"ranks": run.ranks, "expected": row.gpus, **_measured(run)},
        )
    if thresholds.floor_gbps > 0:
        floor = _Floor(sizes=((0, thresholds.floor_gbps),), why="configured here", source="configuration")
    else:
        assert row is not None
        floor = _Floor(sizes=row.nccl_floor, why=row.nccl_why, source=row.source, least=row.nccl_least)
    slow = _slowest(run, floor.least or floor.sizes, thresholds.floor_share)
    severity, remedy = Severity.DEGRADED, Remedy.REBOOT
    if slow is None and floor.least:
        slow = _slowest(run, floor.sizes, thresholds.floor_share)
        severity, remedy = Severity.WARN, Remedy.HUMAN
    if slow is None:
        return None
    if not run.hosts or not run.collective:
        # Several machines, or another collective, may be slower and well.
        raise SensorError("the NCCL run is slow for one machine and does not say where it ran: record its whole header")
    return _finding(run, "nccl.slow", severity, remedy, slow, floor)


def _below_asked(run: NcclRun) -> Finding:
    return Finding(
        fault="nccl.below_asked",
        subject=_subject(run),
        severity=Severity.WARN,
        remedy=Remedy.HUMAN,
        evidence=_measured(run),
    )


def _between(run: NcclRun, instance_type: str, thresholds: Thresholds) -> Finding | None:
    row = efa.TABLE.across.get(instance_type)
    gpus = instance_types.expected_gpus(instance_type)
    if row is None or len(run.hosts) != row.machines or run.collective != "all_reduce" or gpus is None:
        return None
    if run.ranks != gpus * row.machines:
        return None
    floor = _Floor(sizes=row.floor, why=row.why, source=row.source)
    slow = _slowest(run, floor.sizes, thresholds.floor_share)
    # Which of them it is, only another pairing tells: nothing is done to either.
    return None if slow is None else _finding(run, "nccl.slow_between", Severity.DEGRADED, Remedy.HUMAN, slow, floor)


def _speeds(run: NcclRun) -> dict[int, float]:
    """GB/s by size, of the slower half; the median where a size was run in several cycles."""
    by_size: dict[int, list[float]] = {}
    for row in run.rows:
        if row.slower is not None:
            by_size.setdefault(row.size, []).append(row.slower)
    return {size: median(values) for size, values in sorted(by_size.items())}


def _slowest(run: NcclRun, floor: tuple[tuple[int, float], ...], share: float) -> tuple[int, float, float] | None:
    """(size, GB/s, floor) of the largest size that is too slow.

    A size is held against the floor of its own size; the largest, which may have none, against the next smaller one's.
    """
    speeds = _speeds(run)
    for size in sorted(speeds, reverse=True):
        below = [least for at, least in floor if (at == size or (at <= size and size == max(speeds)))]
        if below and speeds[size] < max(below) * share:
            return size, speeds[size], max(below) * share
    return None


def _finding(
    run: NcclRun, fault: str, severity: Severity, remedy: Remedy, slow: tuple[int, float, float], floor: _Floor
) -> Finding:
    size, speed, least = slow
    return Finding(
        fault=fault,
        subject=_subject(run),
        severity=severity,
        remedy=remedy,
        evidence={
            "bytes": size,
            "busbw_gbps": speed,
            "floor_gbps": round(least, 3),
            "floor_why": floor.why,
            "floor_source": floor.source,
            **_measured(run),
        },
    )


def _measured(run: NcclRun) -> dict[str, object]:
    speeds = _speeds(run)
    largest = max(speeds, default=None)
    return {
        "collective": run.collective or None,
        "largest_bytes": largest,
        "largest_busbw_gbps": None if largest is None else speeds[largest],
        "ranks": run.ranks,
        "hosts": list(run.hosts[:64]),
        "source": "nccl-tests",
    }


def _subject(run: NcclRun) -> str:
    return ",".join(run.hosts[:8]) or "nccl"
