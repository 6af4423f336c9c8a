"""NCCL test runs that computed wrong values: silent corruption of data.

A sum that comes out wrong, with no error from any ECC, is the fault that spoils a training run unseen. On one machine
nothing that could be done to it proves a cure (a reboot, a reset and a lucky second run look alike), so it is replaced.
Between several, nobody knows whose it is: a human pairs them anew. A run that was told not to compare (N/A in the
column) is not judged here.
"""

from __future__ import annotations

from collections.abc import Iterator

from nodewatch.checks._api import Phase, check
from nodewatch.model.fabric_samples import NcclRun, NcclSample
from nodewatch.model.health import Finding, Remedy, Severity


@check(reads=NcclSample, phases=Phase.DEEP, every_s=3600.0)
def nccl_wrong(sample: NcclSample) -> Iterator[Finding]:
    """`nccl.wrong_values` for each run with values out of bounds; a run that was cut off is judged by what it shows."""
    for number, run in enumerate(sample.runs):
        wrong = {row.size: row.wrong for row in run.rows if row.wrong}
        if wrong or run.out_of_bounds:
            yield _finding(number, run, wrong)


def _finding(number: int, run: NcclRun, wrong: dict[int, int]) -> Finding:
    return Finding(
        fault="nccl.wrong_values",
        subject=",".join(run.hosts[:8]) or f"run-{number}",
        severity=Severity.FATAL,
        remedy=Remedy.HUMAN if len(run.hosts) > 1 else Remedy.REPLACE,
        evidence={
            "collective": run.collective or None,
            "out_of_bounds": run.out_of_bounds,
            "wrong_by_bytes": {str(size): count for size, count in sorted(wrong.items())[:32]},
            "hosts": list(run.hosts[:64]),
            "source": "nccl-tests",
        },
    )
