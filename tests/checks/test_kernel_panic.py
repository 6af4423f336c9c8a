"""kernel_panic: lines as the kernel and the drivers print them, and what each amounts to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from .kernel_lines import BEGINNINGS, ask, is_silent_on_benign, outline


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000009",
            ("host.kernel_panic", "kernel", "fatal", "reboot"),
        ),
        ("BUG: unable to handle page fault for address: ffffb1", ("host.kernel_oops", "kernel", "degraded", "reboot")),
        (
            "BUG: kernel NULL pointer dereference, address: 0000000000000008",
            ("host.kernel_oops", "kernel", "degraded", "reboot"),
        ),
        ("kernel BUG at mm/slub.c:4023!", ("host.kernel_oops", "kernel", "degraded", "reboot")),
        ("Oops: 0000 [#1] PREEMPT SMP NOPTI", ("host.kernel_oops", "kernel", "degraded", "reboot")),
        (
            "general protection fault, probably for non-canonical address 0xdead: 0000 [#1] SMP",
            ("host.kernel_oops", "kernel", "degraded", "reboot"),
        ),
        ("invalid opcode: 0000 [#2] SMP", ("host.kernel_oops", "kernel", "degraded", "reboot")),
        ("BUG: Bad page state in process python3  pfn:1", ("host.kernel_corrupt", "kernel", "warn", "none")),
        (
            "WARNING: CPU: 3 PID: 99 at kernel/workqueue.c:1 check+0x1",
            ("host.kernel_warning", "kernel", "info", "none"),
        ),
    ],
)
def test_what_a_line_amounts_to(line: str, expected: tuple[str, str, str, str]) -> None:
    assert outline(ask("kernel_panic", line)) == [expected]


@pytest.mark.parametrize(
    "line",
    [
        "traps: python3[12] general protection fault ip:7f sp:7f error:0 in libc.so.6",
        "traps: a.out[911] trap invalid opcode ip:401136 sp:7ffe error:0 in a.out[401000+1000]",
        "watchdog: BUG: soft lockup - CPU#3 stuck for 22s! [python3:4711]",
        "ACPI BIOS Error (bug): Could not resolve symbol",
        "Command line: panic=-1 oops=panic",
    ],
)
def test_what_programs_and_firmware_do_is_no_oops(line: str) -> None:
    assert ask("kernel_panic", line) == []


def test_an_oops_and_its_register_dump_are_one_finding() -> None:
    found = ask(
        "kernel_panic",
        "BUG: kernel NULL pointer dereference, address: 08",
        "#PF: supervisor read",
        "Oops: 0000 [#1] SMP",
    )
    assert [(f.fault, f.evidence["count"]) for f in found] == [("host.kernel_oops", 2)]


def test_nothing_above_a_warning_on_a_healthy_machine() -> None:
    assert is_silent_on_benign("kernel_panic")


@given(st.lists(st.text(max_size=120), max_size=8), st.sampled_from(BEGINNINGS))
def test_no_text_raises(lines: list[str], beginning: str) -> None:
    ask("kernel_panic", *lines, *[beginning + line for line in lines])
