"""dcgm_diag: what a failed test amounts to, and what proves nothing."""

from __future__ import annotations

import pytest

from nodewatch.checks.dcgm_diag import dcgm_diag
from nodewatch.model.gpu_samples import DcgmDiagSample, DcgmError, DcgmResult
from nodewatch.model.health import Remedy, Severity

PASS = DcgmResult(test="memory", category="Hardware", status="pass", said="Pass", ids=(1,))


def failed(*errors: DcgmError, status: str = "fail", test: str = "memory", ids: tuple[int, ...] = (0,)) -> DcgmResult:
    return DcgmResult(test=test, category="Hardware", status=status, said=status, ids=ids, errors=errors)


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (failed(), ("gpu.dcgm.memory", Severity.DEGRADED, Remedy.HUMAN)),
        (failed(DcgmError(text="new words")), ("gpu.dcgm.memory", Severity.DEGRADED, Remedy.HUMAN)),
        (failed(DcgmError(text="", error_id=1)), ("gpu.dcgm.memory", Severity.DEGRADED, Remedy.HUMAN)),
        (
            failed(DcgmError(text="", error_id=52, severity=2)),
            ("gpu.dcgm.faulty_memory", Severity.FATAL, Remedy.REPLACE),
        ),
        (failed(DcgmError(text="", error_id=500, severity=2)), ("gpu.dcgm.error_500", Severity.FATAL, Remedy.REPLACE)),
        (failed(DcgmError(text="", severity=6)), ("gpu.dcgm.reset", Severity.DEGRADED, Remedy.RESET_GPU)),
        (failed(DcgmError(text="", severity=3)), ("gpu.dcgm.unknown", Severity.DEGRADED, Remedy.HUMAN)),
        (failed(DcgmError(text="", severity=1)), ("gpu.dcgm.monitor", Severity.WARN, Remedy.NONE)),
        (failed(DcgmError(text="", severity=5)), ("config.config", Severity.WARN, Remedy.RESTART_SERVICE)),
        (
            failed(DcgmError(text="GPU 0 has fallen off the bus")),
            ("gpu.dcgm.fallen_off_bus", Severity.FATAL, Remedy.REBOOT),
        ),
        # An Xid is graded by its own table: an unrelated 45 drains nothing, a 79 is what it always is.
        (
            failed(DcgmError(text="Detected XID 45 for GPU 0", error_id=101, severity=4)),
            ("gpu.dcgm.xid_45", Severity.WARN, Remedy.RESTART_APP),
        ),
        (
            failed(DcgmError(text="Detected XID 79 for GPU 0", error_id=101, severity=4)),
            ("gpu.dcgm.xid_79", Severity.FATAL, Remedy.REBOOT),
        ),
        (
            failed(DcgmError(text="an Xid", error_id=101, severity=4)),
            ("gpu.dcgm.xid_error", Severity.WARN, Remedy.HUMAN),
        ),
        (
            failed(DcgmError(text="", error_id=52, severity=2), status="warn"),
            ("gpu.dcgm.faulty_memory", Severity.WARN, Remedy.REPLACE),
        ),
        (failed(status="warn"), ("gpu.dcgm.memory", Severity.WARN, Remedy.HUMAN)),
        (
            failed(DcgmError(text="", error_id=52, severity=2), status="pass"),
            ("gpu.dcgm.faulty_memory", Severity.WARN, Remedy.REPLACE),
        ),
    ],
)
def test_judgement(result: DcgmResult, expected: tuple[str, Severity, Remedy]) -> None:
    (finding,) = dcgm_diag(DcgmDiagSample(results=(PASS, result)))
    assert (finding.fault, finding.severity, finding.remedy) == expected
    assert finding.subject == "gpu-0"


def test_the_subject_is_the_serial_number_where_there_is_one() -> None:
    sample = DcgmDiagSample(results=(PASS, failed()), serials=(("GPU", 0, "165"), ("CPU", 0, "9")))
    (finding,) = dcgm_diag(sample)
    assert (finding.subject, finding.evidence["entity_ids"], finding.evidence["serial"]) == ("165", [0], "165")


def test_a_result_of_all_gpus_is_of_the_one_that_the_text_names() -> None:
    error = DcgmError(text="GPU 3 has uncorrectable memory errors", error_id=84, severity=6)
    (finding,) = dcgm_diag(DcgmDiagSample(results=(failed(error, ids=(0, 1, 2, 3)),)))
    assert finding.subject == "gpu-3"
    (finding,) = dcgm_diag(DcgmDiagSample(results=(failed(DcgmError(text="all of them"), ids=(0, 1)),)))
    assert finding.subject == "gpus"


def test_the_same_error_in_two_tests_is_one_finding() -> None:
    first = failed(DcgmError(text="a", error_id=103, severity=2))
    second = failed(DcgmError(text="b", error_id=103, severity=2), test="memtest")
    (finding,) = dcgm_diag(DcgmDiagSample(results=(first, second)))
    assert finding.evidence["warnings"] == ["a", "b"]


def test_a_summary_that_repeats_an_error_adds_nothing() -> None:
    error = DcgmError(text="mismatch", error_id=58, severity=2)
    summary = DcgmResult(test="memory", category="Hardware", status="fail", errors=(error,), is_summary=True)
    alone = DcgmDiagSample(results=(PASS, summary))
    assert [finding.subject for finding in dcgm_diag(alone)] == ["gpus"]
    both = DcgmDiagSample(results=(failed(error), PASS, summary))
    assert [finding.subject for finding in dcgm_diag(both)] == ["gpu-0"]


@pytest.mark.parametrize(("broken", "severity"), [((0, 1, 2), Severity.WARN), ((0, 1), Severity.DEGRADED)])
def test_what_every_gpu_has_alike_is_the_software_that_they_share(broken: tuple[int, ...], severity: Severity) -> None:
    error = DcgmError(text="no context", error_id=66, category=6, severity=4)
    results = [failed(error, ids=(n,)) if n in broken else failed(status="pass", ids=(n,)) for n in range(3)]
    findings = list(dcgm_diag(DcgmDiagSample(results=tuple(results))))
    assert {finding.severity for finding in findings} == {severity}


def test_a_failure_counts_also_in_a_run_that_did_not_end_well() -> None:
    sample = DcgmDiagSample(results=(failed(),), runtime_error="killed")
    assert len(list(dcgm_diag(sample))) == 1


def test_some_skipped_is_a_pass() -> None:
    assert list(dcgm_diag(DcgmDiagSample(results=(PASS, failed(status="skip"))))) == []
