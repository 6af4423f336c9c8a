"""nccl_wrong: wrong values on one machine, and between several."""

from __future__ import annotations

import pytest

from nodewatch.checks.nccl_wrong import nccl_wrong
from nodewatch.model.fabric_samples import NcclRow, NcclRun, NcclSample
from nodewatch.model.health import Remedy, Severity


@pytest.mark.parametrize(
    ("wrong", "out_of_bounds", "hosts", "expected"),
    [
        (0, 0, ("n1",), []),
        (None, 0, ("n1",), []),
        (None, None, ("n1",), []),
        (12, 1, ("n1",), [(Severity.FATAL, Remedy.REPLACE)]),
        (12, None, ("n1",), [(Severity.FATAL, Remedy.REPLACE)]),
        (None, 3, ("n1",), [(Severity.FATAL, Remedy.REPLACE)]),
        (1, 1, ("n1", "n2"), [(Severity.FATAL, Remedy.HUMAN)]),
    ],
)
def test_wrong_values(
    wrong: int | None, out_of_bounds: int | None, hosts: tuple[str, ...], expected: list[object]
) -> None:
    rows = (NcclRow(size=8, in_place=1.0, wrong=0), NcclRow(size=16, in_place=2.0, wrong=wrong))
    run = NcclRun(hosts=hosts, rows=rows, out_of_bounds=out_of_bounds)
    findings = list(nccl_wrong(NcclSample(runs=(run,))))
    assert [(f.severity, f.remedy) for f in findings] == expected
    for finding in findings:
        assert finding.fault == "nccl.wrong_values"
        assert finding.evidence["wrong_by_bytes"] == ({"16": wrong} if wrong else {})
