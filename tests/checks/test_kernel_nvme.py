"""kernel_nvme: lines as the kernel and the drivers print them, and what each amounts to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewatch.checks.kernel_nvme import KernelNvmeThresholds

from .kernel_lines import BEGINNINGS, ask, is_silent_on_benign, outline

IO = "I/O error, dev nvme1n1, sector {n} op 0x0:(READ) flags 0x80700 phys_seg 1 prio class 2"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("nvme nvme1: I/O 123 QID 5 timeout, aborting", ("host.nvme_timeout", "nvme1", "warn", "none")),
        ("nvme nvme1: I/O 12 QID 0 timeout, reset controller", ("host.nvme_timeout", "nvme1", "warn", "none")),
        (
            "nvme nvme0: I/O tag 12 (100c) opcode 0x2 (I/O Cmd) QID 3 timeout, aborting req_op:READ(0) size:4096",
            ("host.nvme_timeout", "nvme0", "warn", "none"),
        ),
        (
            "nvme nvme0: controller is down; will reset: CSTS=0xffffffff, PCI_STATUS=0xffff",
            ("host.nvme_down", "nvme0", "warn", "none"),
        ),
        (
            "nvme nvme0: Disabling device after reset failure: -19",
            ("host.nvme_lost", "nvme0", "degraded", "reboot"),
        ),
        (
            "nvme nvme0: Removing after probe failure status: -19",
            ("host.nvme_lost", "nvme0", "degraded", "reboot"),
        ),
        (IO.format(n=1), ("host.disk_io_error", "nvme1n1", "warn", "none")),
        ("blk_update_request: " + IO.format(n=1), ("host.disk_io_error", "nvme1n1", "warn", "none")),
        (
            "critical medium error, dev nvme1n1, sector 8 op 0x0:(READ) flags 0x0 phys_seg 1 prio class 2",
            ("host.disk_medium_error", "nvme1n1", "degraded", "replace"),
        ),
    ],
)
def test_what_a_line_amounts_to(line: str, expected: tuple[str, str, str, str]) -> None:
    assert outline(ask("kernel_nvme", line)) == [expected]


def test_many_errors_of_one_disk() -> None:
    (finding,) = ask("kernel_nvme", *[IO.format(n=n) for n in range(12)], recent=4)
    assert (finding.severity.word, finding.remedy.word, finding.evidence["errors"]) == ("degraded", "reboot", 12)
    (milder,) = ask("kernel_nvme", *[IO.format(n=n) for n in range(12)], thresholds=KernelNvmeThresholds(io_errors=100))
    assert milder.severity.word == "warn"


@pytest.mark.parametrize("device", ["fd0", "sr0", "loop7", "nbd0", "zram0"])
def test_devices_that_mean_nothing(device: str) -> None:
    assert ask("kernel_nvme", *[IO.format(n=n).replace("nvme1n1", device) for n in range(50)]) == []


def test_nothing_above_a_warning_on_a_healthy_machine() -> None:
    assert is_silent_on_benign("kernel_nvme")


@given(st.lists(st.text(max_size=120), max_size=8), st.sampled_from(BEGINNINGS))
def test_no_text_raises(lines: list[str], beginning: str) -> None:
    ask("kernel_nvme", *lines, *[beginning + line for line in lines])
