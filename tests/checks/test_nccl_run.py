"""nccl_run: what a failed run says of the machine, and what it does not."""

from __future__ import annotations

import pytest

from nodewatch.checks.nccl_run import nccl_run
from nodewatch.errors import SensorError
from nodewatch.model.fabric_samples import NcclRow, NcclRun, NcclSample
from nodewatch.model.health import Remedy, Severity

WELL = NcclRun(
    collective="all_reduce",
    ranks=8,
    hosts=("n1",),
    rows=(NcclRow(size=8, in_place=1.0),),
    out_of_bounds=0,
    is_finished=True,
)
ONE, TWO = ("n1",), ("n1", "n2")


@pytest.mark.parametrize(
    ("line", "hosts", "expected"),
    [
        (
            "n1: Test NCCL failure x.cu:958 'unhandled system error'",
            ONE,
            ("nccl.failed", Severity.DEGRADED, Remedy.REBOOT),
        ),
        ("n1: Test NCCL failure common.cu:958 'remote error'", TWO, ("nccl.failed", Severity.DEGRADED, Remedy.HUMAN)),
        ("[n1] Caught signal 11 (Segmentation fault)", ONE, ("nccl.failed", Severity.DEGRADED, Remedy.REBOOT)),
        (
            "slurmstepd: error: *** STEP 7.0 ON n1 CANCELLED AT 2026-01-02T03:04:05 DUE TO TIME LIMIT ***",
            ONE,
            ("nccl.hung", Severity.DEGRADED, Remedy.REBOOT),
        ),
        (
            "n1: Test CUDA failure common.cu:303 'uncorrectable ECC error encountered'",
            ONE,
            ("nccl.gpu_error", Severity.FATAL, Remedy.RESET_GPU),
        ),
        (
            "n1: Test CUDA failure common.cu:303 'uncorrectable ECC error encountered'",
            TWO,
            ("nccl.gpu_error", Severity.FATAL, Remedy.HUMAN),
        ),
        (
            "Invalid number of GPUs: 8 requested but only 7 were found.",
            ONE,
            ("nccl.failed", Severity.DEGRADED, Remedy.REBOOT),
        ),
    ],
)
def test_failures(line: str, hosts: tuple[str, ...], expected: object) -> None:
    run = NcclRun(hosts=hosts, ranks=8)
    (finding,) = nccl_run(NcclSample(runs=(run,), failures=(line,), instance_type="p5.48xlarge"))
    assert (finding.fault, finding.severity, finding.remedy) == expected
    assert finding.evidence["said"] == [line]


@pytest.mark.parametrize(
    "line",
    [
        "n1: Test NCCL failure common.cu:958 'invalid usage (run with NCCL_DEBUG=WARN for details)'",
        "slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 2026-01-02T03:04:05 ***",
        "Invalid number of GPUs: 16 requested but only 8 were found.",
    ],
)
def test_a_run_that_was_started_wrongly_says_nothing_of_the_machine(line: str) -> None:
    follows = " .. n1 pid 4100: Test failure common.cu:849"
    with pytest.raises(SensorError):
        list(nccl_run(NcclSample(runs=(), failures=(line, follows), instance_type="p5.48xlarge")))


def test_warnings_of_a_run_that_ended() -> None:
    nothing = ("n1:1:2 [0] NCCL WARN NET/IB : No device found.",)
    assert list(nccl_run(NcclSample(runs=(WELL,), warnings=nothing))) == []
    broken = (
        "n1:1:2 [0] NCCL WARN NET/IB : Got completion from peer 10.0.0.2 with status=12 opcode=0 len=0 vendor err 129",
    )
    (finding,) = nccl_run(NcclSample(runs=(WELL,), warnings=broken))
    assert (finding.fault, finding.severity) == ("nccl.warned", Severity.WARN)


def test_a_run_that_did_not_end_is_unknown() -> None:
    for run in (
        NcclRun(rows=WELL.rows),
        NcclRun(is_finished=True),
        NcclRun(rows=WELL.rows, is_finished=True, unreadable=("x",)),
    ):
        with pytest.raises(SensorError):
            list(nccl_run(NcclSample(runs=(WELL, run))))


@pytest.mark.parametrize(
    ("line", "hosts", "named"),
    [
        ("n1: NET/OFI completed with error. RC: 103. Error: 4126 (Unresponsive receiver)", TWO, True),
        ("n1: socketStartConnect: Connect to 10.0.0.2<4711> failed : Connection timed out", TWO, True),
        # Within one machine no security group is in the way; a hang and a crash have other causes.
        ("n1: NET/OFI completed with error. RC: 103. Error: 4126 (Unresponsive receiver)", ONE, False),
        ("n1: Test timeout common.cu:958", TWO, False),
        ("[n1] Caught signal 11 (Segmentation fault)", TWO, False),
    ],
)
def test_a_security_group_is_named_as_such(line: str, hosts: tuple[str, ...], named: bool) -> None:
    (finding,) = nccl_run(NcclSample(runs=(NcclRun(hosts=hosts, ranks=8),), failures=(line,)))
    assert ("security group" in finding.evidence.get("means", "")) is named
