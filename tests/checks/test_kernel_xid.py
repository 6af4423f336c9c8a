"""kernel_xid: every shape of an Xid line, and what each number amounts to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewatch.checks.kernel_xid import KernelXidThresholds, kernel_xid, parse_line
from nodewatch.model.health import Finding, Remedy, Severity
from nodewatch.model.samples import KmsgRecord, KmsgSample

from .kernel_lines import ask, is_silent_on_benign

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
        ("NVRM: Xid (PCI:0000:53:00 GPU-I:05): 95, pid=8, name=a, Uncontained", 95, "0000:53:00", 8, "a"),
        ("NVRM: Xid (PCI:0000:53:00 GPU-I:05 GPU-CI:00): 13, pid=8, name=a, X", 13, "0000:53:00", 8, "a"),
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
        (154, "GPU recovery action changed from 0x0 (None) to 0x2 (OS Reboot)", Severity.FATAL, Remedy.REBOOT),
        (154, "GPU recovery action changed from 0x0 (None) to 0x1 (PF FLR)", Severity.FATAL, Remedy.RESET_GPU),
        (154, "GPU recovery action changed from 0x0 (None) to 0x1 (Words of 2031)", Severity.FATAL, Remedy.RESET_GPU),
        (
            154,
            "GPU recovery action changed from 0x0 (None) to 0x5 (Recover IMEX Domain)",
            Severity.WARN,
            Remedy.RESTART_SERVICE,
        ),
        (154, "GPU recovery action changed from 0x0 (None) to 0x7 (System Reboot)", Severity.FATAL, Remedy.REBOOT),
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


def xid(number: int, text: str = "x", *, pci: str = "53", pid: int = 1) -> str:
    return f"NVRM: Xid (PCI:0000:{pci}:00): {number}, pid={pid}, name=python3, {text}"


def words(finding: Finding) -> tuple[str, str]:
    return (finding.severity.word, finding.remedy.word)


def by_number(findings: list[Finding]) -> dict[int, Finding]:
    return {finding.evidence["xid"]: finding for finding in findings}


def test_48_alone_and_with_a_recorded_row() -> None:
    (alone,) = ask("kernel_xid", xid(48))
    assert (words(alone), alone.evidence["workflow"]) == (("fatal", "reset_gpu"), "alone: reset")
    both = by_number(ask("kernel_xid", xid(48), xid(63), step_s=29.0))
    assert words(both[48]) == ("degraded", "reset_gpu")
    assert both[48].evidence["companions"] == [63]
    assert words(by_number(ask("kernel_xid", xid(63), xid(48), recent=1))[48]) == ("degraded", "reset_gpu")
    # A row that could not be recorded is not out of use after the reset.
    assert words(by_number(ask("kernel_xid", xid(48), xid(64)))[48]) == ("fatal", "reset_gpu")


@pytest.mark.parametrize(("line", "step_s"), [(xid(63), 31.0), (xid(63, pci="64"), 1.0)])
def test_a_row_of_another_time_or_gpu_is_no_companion(line: str, step_s: float) -> None:
    assert words(by_number(ask("kernel_xid", xid(48), line, step_s=step_s))[48]) == ("fatal", "reset_gpu")


def test_45_alone_and_after_another() -> None:
    (alone,) = ask("kernel_xid", xid(45))
    assert (words(alone), alone.evidence["workflow"]) == (("info", "restart_app"), "alone")
    both = by_number(ask("kernel_xid", xid(79), xid(45, pci="64")))
    assert (words(both[45]), both[45].evidence["companions"]) == (("info", "none"), [79])


@pytest.mark.parametrize(("cause", "severity"), [(149, "warn"), (79, "warn"), (31, "info")])
def test_45_that_names_a_fault_which_the_log_has_lost(cause: int, severity: str) -> None:
    line = f"NVRM: Xid (PCI:0000:dc:00): 45, pid=18, name=python3, Ch 00000001 caused by previous Xid {cause}"
    (finding,) = ask("kernel_xid", line)
    assert (words(finding), finding.evidence["caused_by"]) == ((severity, "none"), cause)
    assert words(by_number(ask("kernel_xid", xid(cause, pci="97"), line))[45]) == ("info", "none")


def test_a_burst_is_one_finding_with_a_count() -> None:
    (finding,) = ask("kernel_xid", *[xid(31, f"Ch {n}", pid=7) for n in range(500)], step_s=0.001)
    assert (finding.severity.word, finding.evidence["count"], finding.evidence["pids"]) == ("info", 500, [7])


def test_many_programs_that_fail_on_one_gpu_are_a_warning() -> None:
    one_gpu = ask("kernel_xid", *[xid(31, pid=n) for n in range(1, 4)], step_s=5.0)
    assert [f.severity.word for f in one_gpu] == ["warn"]
    eight_gpus = ask("kernel_xid", *[xid(31, pci=f"5{n}", pid=n) for n in range(1, 9)], step_s=0.1)
    assert {f.severity.word for f in eight_gpus} == {"info"}


@pytest.mark.parametrize(
    ("registers", "expected"),
    [
        ("0x10000, 0x0, 0x0, 0x0, 0x0, 0x0, 0x0", ("degraded", "reset_gpu")),
        ("0x0, 0x0, 0x10000, 0x0, 0x0, 0x0, 0x0", ("warn", "none")),
        ("0x400000, 0x0, 0x0, 0x0, 0x0, 0x0, 0x0", ("degraded", "reset_gpu")),
        ("0x10, 0x0, 0x0, 0x0, 0x0, 0x0, 0x0", ("degraded", "reset_gpu")),
        ("0x1, 0x0, 0x0, 0x0, 0x0, 0x0, 0x0", ("info", "none")),
        ("0x0, 0x0, 0x0, 0x0, 0x100000, 0x0, 0x0", ("warn", "none")),
        ("0x2, 0x0, 0x0, 0x0, 0x0, 0x0, 0x0", ("degraded", "reset_gpu")),
        ("0x0, 0x0, 0x0, 0x40000, 0x0, 0x0, 0x0", ("degraded", "reset_gpu")),
        ("0x80000000, 0x0, 0x0, 0x0, 0x0, 0x0, 0x0", ("degraded", "reset_gpu")),
        ("0x0, 0x0, 0x0, 0x0, 0x0, 0x0, 0x0", ("degraded", "reset_gpu")),
        ("nonsense", ("degraded", "reset_gpu")),
    ],
)
def test_the_registers_of_74(registers: str, expected: tuple[str, str]) -> None:
    (finding,) = ask("kernel_xid", xid(74, f"NVLink: fatal error detected on link 6({registers})"))
    assert words(finding) == expected


def test_74_again_and_with_others() -> None:
    ecc = xid(74, "NVLink: fatal error detected on link 6(0x10, 0x0, 0x0, 0x0, 0x0, 0x0, 0x0)")
    assert words(ask("kernel_xid", *[ecc] * 3)[0]) == ("degraded", "replace")
    once = xid(74, "NVLink: fatal error detected on link 6(0x0, 0x0, 0x10000, 0x0, 0x0, 0x0, 0x0)")
    assert words(ask("kernel_xid", once, once)[0]) == ("degraded", "reset_gpu")
    secondary = xid(74, "NVLink: fatal error detected on link 6(0x2, 0x0, 0x0, 0x0, 0x0, 0x0, 0x0)")
    found = by_number(ask("kernel_xid", secondary, xid(79, pci="64")))
    assert (words(found[74]), found[74].evidence["companions"]) == (("warn", "none"), [79])


@pytest.mark.parametrize(
    ("number", "text", "expected"),
    [
        (145, "RLW_REMAP Fatal XC1 i0 Link 10 (0x82 0x40 0x0 0x0 0x0 0x0)", ("degraded", "reset_gpu")),
        (145, "RLW_REMAP Nonfatal XC1 i0 Link 10 (0x4 0x40 0x0 0x0 0x0 0x0)", ("warn", "none")),
        (145, "RLW_REMAP Nonfatal XC0 i0 Link 00 (0x4 0x1 0x0 0x0)", ("warn", "restart_app")),
        (145, "RLW_RXPIPE Nonfatal XC0 i0 Link 00 (0x6 0x1 0x0 0x0)", ("warn", "none")),
        (145, "RLW_RXPIPE Fatal XC0 i0 Link 00 (0x86 0x1 0x0 0x0)", ("degraded", "reset_gpu")),
        (144, "SAW_MVB Nonfatal XC0 i0 Link 00 (0x1 0x1 0x0 0x0)", ("warn", "none")),
        (149, "NETIR_LINK_EVT  Fatal   XC0 i0 Link 01 (0x021425c6 0x0 0x0 0x0 0x0 0x0)", ("degraded", "reset_gpu")),
        (149, "NETIR_LINK_EVT Fatal XC0 i0 Link 00 (0x026001c6 0x0 0x0 0x0 0x0 0x0)", ("warn", "human")),
        (149, "NETIR_BER_EVENT Nonfatal XC0 i0 Link 00 (0x0 0x1 0x0 0x0)", ("warn", "none")),
        (149, "NETIR_MFDE_EVENT Fatal XC0 i0 Link 00 (0x0 0x4 0x0 0x0)", ("degraded", "reset_gpu")),
        (149, "NETIR_LINK_EVT Fatal XC 1 i 2 Link 01 [0x0000000a]", ("degraded", "reset_gpu")),
        (150, "MSE_WATCHDOG Fatal XC0 i0 Link -1 (0x0 0x0 0x0 0x0)", ("degraded", "reset_gpu")),
        (144, "NEW_UNIT Fatal XC0 i0 Link 00 (0x1 0x1 0x0 0x0)", ("degraded", "reset_gpu")),
        (144, "NEW_UNIT Nonfatal XC0 i0 Link 00 (0x1 0x1 0x0 0x0)", ("warn", "none")),
    ],
)
def test_the_units_of_144_to_150(number: int, text: str, expected: tuple[str, str]) -> None:
    (finding,) = ask("kernel_xid", f"NVRM: Xid (PCI:0018:01:00): {number}, {text}")
    assert words(finding) == expected


def test_a_154_with_it_decides() -> None:
    remap = "NVRM: Xid (PCI:0000:53:00): 145, RLW_REMAP Nonfatal XC0 i0 Link 00 (0x4 0x1 0x0 0x0)"
    found = by_number(ask("kernel_xid", remap, xid(154, "changed from 0x0 (None) to 0x1 (GPU Reset Required)")))
    assert (words(found[145]), words(found[154])) == (("warn", "none"), ("fatal", "reset_gpu"))


def test_the_three_lines_of_a_gpu_that_is_lost_at_the_start() -> None:
    lines = (
        "NVRM: The NVIDIA GPU 0000:06:00.0",
        "NVRM: (PCI ID: 10de:2330) installed in this system has",
        "NVRM: fallen off the bus and is not responding to commands.",
    )
    for recent in (0, 2):
        (finding,) = ask("kernel_xid", *lines, recent=recent)
        assert (finding.fault, finding.subject) == ("gpu.xid.79", "0000:06:00")
    assert ask("kernel_xid", lines[2]) == []


@pytest.mark.parametrize("between", ["\n", "#012", "\n               "])
def test_the_same_as_one_message_of_three_lines(between: str) -> None:
    text = between.join(
        (
            "NVRM: The NVIDIA GPU 0000:06:00.0",
            "NVRM: (PCI ID: 10de:2330) installed in this system has",
            "NVRM: fallen off the bus and is not responding to commands.",
        )
    )
    (finding,) = ask("kernel_xid", text)
    assert (finding.fault, finding.subject) == ("gpu.xid.79", "0000:06:00")


def test_nothing_above_a_warning_on_a_healthy_machine() -> None:
    assert is_silent_on_benign("kernel_xid")
