"""kernel_readonly_remount: lines as the kernel and the drivers print them, and what each amounts to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from .kernel_lines import BEGINNINGS, ask, is_silent_on_benign, outline


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "EXT4-fs (nvme0n1p1): Remounting filesystem read-only",
            ("host.filesystem_readonly", "nvme0n1p1", "degraded", "reboot"),
        ),
        ("EXT4-fs (loop3): Remounting filesystem read-only", ("host.filesystem_readonly", "loop3", "warn", "none")),
        (
            "BTRFS info (device sda1: state E): forced readonly",
            ("host.filesystem_readonly", "sda1", "degraded", "reboot"),
        ),
        (
            "XFS (nvme1n1): Filesystem has been shut down due to log error (0x2).",
            ("host.filesystem_shutdown", "nvme1n1", "degraded", "reboot"),
        ),
        (
            "XFS (dm-0): Corruption of in-memory data (0x8) detected at xfs_defer_finish+0x3a0. Shutting down filesystem.",
            ("host.filesystem_shutdown", "dm-0", "degraded", "reboot"),
        ),
        (
            "EXT4-fs error (device nvme0n1p1): ext4_find_entry:1455: inode #2: comm ls: reading directory lblock 0",
            ("host.filesystem_error", "nvme0n1p1", "warn", "none"),
        ),
        ("Aborting journal on device nvme0n1p1-8.", ("host.filesystem_error", "filesystem", "warn", "none")),
        (
            'XFS (nvme1n1): metadata I/O error in "xfs_trans_read_buf_map" at daddr 0x1 len 1 error 5',
            ("host.filesystem_error", "filesystem", "warn", "none"),
        ),
        (
            "EXT4-fs (sda1): warning: mounting fs with errors, running e2fsck is recommended",
            ("host.filesystem_dirty", "sda1", "warn", "none"),
        ),
    ],
)
def test_what_a_line_amounts_to(line: str, expected: tuple[str, str, str, str]) -> None:
    assert outline(ask("kernel_readonly_remount", line)) == [expected]


def test_a_shutdown_that_was_asked_for_is_no_fault() -> None:
    found = ask(
        "kernel_readonly_remount",
        "XFS (nvme1n1): User initiated shutdown received.",
        "XFS (nvme1n1): Filesystem has been shut down due to log error (0x6).",
        "XFS (nvme2n1): Filesystem has been shut down due to log error (0x2).",
    )
    assert outline(found) == [
        ("host.filesystem_shutdown_asked", "nvme1n1", "info", "none"),
        ("host.filesystem_shutdown", "nvme2n1", "degraded", "reboot"),
    ]


def test_nothing_above_a_warning_on_a_healthy_machine() -> None:
    assert is_silent_on_benign("kernel_readonly_remount")


@given(st.lists(st.text(max_size=120), max_size=8), st.sampled_from(BEGINNINGS))
def test_no_text_raises(lines: list[str], beginning: str) -> None:
    ask("kernel_readonly_remount", *lines, *[beginning + line for line in lines])
