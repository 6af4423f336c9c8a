"""kernel_xid: every shape of an Xid line, and what each number amounts to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewatch.checks.kernel_xid import KernelXidThresholds, kernel_xid, parse_line
from nodewatch.model.health import Finding, Remedy, Severity
from nodewatch.model.samples import KmsgRecord, KmsgSample

LOST = "GPU has fallen off the bus."


def judge(*lines: str, thresholds: KernelXidThresholds | None = None) -> list[Finding]:
    records = tuple(KmsgRecord(text=line, sequence=7 + n, since_boot_us=5) for n, line in enumerate(lines))
    return list(kernel_xid(KmsgSample(records=records), thresholds or KernelXidThresholds()))


@pytest.mark.parametrize(
    ("line", "number", "pci", "pid", "name"),
    [
        (f"NVRM: Xid (PCI:0000:53:00): 79, pid='<unknown>', name=<unknown>, {LOST}", 79, "0000:53:00", None, None),
        (f"NVRM: Xid (PCI:0000:53:00): 79, pid=1234, name=python3, {LOST}", 79, "0000:53:00", 1234, "python3"),
        ("NVRM: Xid (PCI:0000:05:00): 31, pid=7194, Ch 00000010, intr 10000000.", 31, "0000:05:00", 7194, None),
        ("NVRM: Xid (PCI:0000:9a:00): 48, pid=1, name=a b, DBE", 48, "0000:9a:00", 1, "a b"),
        ("NVRM: Xid (0000:03:00): 31, Ch 00000001", 31, "0000:03:00", None, None),
        ("NVRM: Xid (PCI:00000000:C1:00.0): 74, pid='12', name='x', NVLink", 74, "0000:c1:00", 12, "x"),
        (f"NVRM: Xid (GPU 0000:53:00.0): 79, {LOST}", 79, "0000:53:00", None, None),
        ("NVRM: Xid (PCI:0000:53:00): 119", 119, "0000:53:00", None, None),
        (f"NVRM: GPU 0000:53:00.0: {LOST}", 79, "0000:53:00", None, None),
        (f"NVRM: GPU at PCI:0000:53:00: {LOST}", 79, "0000:53:00", None, None),
        (f"[ 12.3] host kernel: NVRM: Xid (PCI:0001:00:00): 79, pid=9, {LOST}", 79, "0001:00:00", 9, None),
    ],
)
def test_shapes(line: str, number: int, pci: str, pid: int | None, name: str | None) -> None:
    (finding,) = judge(line)
    assert finding.fault == f"gpu.xid.{number}"
    assert finding.family == "gpu"
    assert finding.subject == pci
    assert finding.evidence["xid"] == number
    assert finding.evidence["line"] == line
    assert finding.evidence["pid"] == pid
    assert finding.evidence["process"] == name
    assert finding.evidence["sequence"] == 7
    assert finding.evidence["source"] == "kernel log"


@pytest.mark.parametrize(
    "line",
    [
        "",
        "NVRM: loading NVIDIA UNIX x86_64 Kernel Module",
        "NVRM: Xid",
        "NVRM: Xid (PCI:0000:53:00): , pid=1",
        "NVRM: Xid (PCI:0000:53:00): 1234567",
        "NVRM: Xid (PCI:zz): 79, pid=1",
        "NVRM: GPU at PCI:0000:53:00: GPU-c2f0a2c5-90bb-a3a9-9b6c-0cf1e8b6d6b8",
        "python[12]: I saw Xid 79 yesterday",
        "nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 20034, Fatal, Link 30 LTSSM Fault Up",
    ],
)
def test_lines_that_are_no_xid(line: str) -> None:
    assert judge(line) == []


@pytest.mark.parametrize(
    ("number", "text", "severity", "remedy"),
    [
        (13, "Graphics Exception", Severity.INFO, Remedy.RESTART_APP),
        (31, "MMU Fault", Severity.INFO, Remedy.RESTART_APP),
        (43, "Ch 1", Severity.INFO, Remedy.RESTART_APP),
        (45, "Ch 1", Severity.INFO, Remedy.RESTART_APP),
        (48, "DBE", Severity.FATAL, Remedy.RESET_GPU),
        (63, "Row Remapper: New row marked for remapping", Severity.INFO, Remedy.NONE),
        (64, "Row remapping failed", Severity.FATAL, Remedy.RESET_GPU),
        (74, "NVLink: fatal error detected on link 0", Severity.DEGRADED, Remedy.RESET_GPU),
        (79, LOST, Severity.FATAL, Remedy.REBOOT),
        (94, "Contained", Severity.INFO, Remedy.RESTART_APP),
        (95, "Uncontained", Severity.FATAL, Remedy.RESET_GPU),
        (119, "Timeout after 6s of waiting for RPC response from GPU0 GSP!", Severity.FATAL, Remedy.RESET_GPU),
        (149, "NETIR_LINK_EVT  Fatal   XC0 i0 Link 04", Severity.DEGRADED, Remedy.RESET_GPU),
        (149, "NETIR_LINK_EVT  Nonfatal   XC0 i0 Link 04", Severity.WARN, Remedy.NONE),
        (
            154,
            "GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)",
            Severity.FATAL,
            Remedy.RESET_GPU,
        ),
        (
            154,
            "GPU recovery action changed from 0x0 (None) to 0x2 (Node Reboot Required)",
            Severity.FATAL,
            Remedy.REBOOT,
        ),
        (154, "GPU recovery action changed from 0x1 (GPU Reset Required) to 0x0 (None)", Severity.INFO, Remedy.NONE),
        (154, "GPU recovery action changed from 0x0 (None) to 0x3 (Drain P2P)", Severity.DEGRADED, Remedy.RESET_GPU),
        (
            154,
            "GPU recovery action changed from 0x0 (None) to 0x4 (Drain and Reset)",
            Severity.DEGRADED,
            Remedy.RESET_GPU,
        ),
        (154, "some new text", Severity.WARN, Remedy.HUMAN),
        (999, "what is this", Severity.WARN, Remedy.HUMAN),
    ],
)
def test_what_a_number_amounts_to(number: int, text: str, severity: Severity, remedy: Remedy) -> None:
    (finding,) = judge(f"NVRM: Xid (PCI:0000:53:00): {number}, pid=1, name=python, {text}")
    assert (finding.severity, finding.remedy) == (severity, remedy)


def test_a_site_changes_the_table() -> None:
    line = "NVRM: Xid (PCI:0000:53:00): 63, pid=1, Row Remapper"
    changed = KernelXidThresholds(severity={"63": "fatal"}, remedy={"63": "replace"})
    (finding,) = judge(line, thresholds=changed)
    assert (finding.severity, finding.remedy) == (Severity.FATAL, Remedy.REPLACE)
    assert judge(line, thresholds=KernelXidThresholds(ignored=(63,))) == []
    with pytest.raises(ValueError, match="no Xid number"):
        KernelXidThresholds(severity={"sixty": "fatal"})


def test_evidence_is_bounded() -> None:
    (finding,) = judge("NVRM: Xid (PCI:0000:53:00): 79, " + "x" * 100_000)
    assert len(finding.evidence["line"]) == 1024


@given(st.text())
def test_no_text_raises_and_garbage_is_no_finding(text: str) -> None:
    if "NVRM" not in text:
        assert judge(text) == []


@given(st.text(alphabet="NVRM: Xid(PC0123456789abf.,)='<>unkow\n", max_size=80))
def test_near_misses_never_raise(text: str) -> None:
    parse_line("NVRM: Xid (PCI:0000:" + text)
    judge("NVRM: Xid " + text)
