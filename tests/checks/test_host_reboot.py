"""host_reboot: boots that nobody asked for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewatch.checks.host_reboot import HostRebootThresholds, host_reboot
from nodewatch.model.host_samples import BootSample


@pytest.mark.parametrize(
    ("previous", "was_clean", "in_a_day", "expected"),
    [
        (None, None, 0, []),
        ("b0", True, 0, []),
        ("b0", None, 0, []),
        ("b0", False, 1, ["info"]),
        ("b0", False, 2, ["warn"]),
        ("b0", True, 5, []),
    ],
)
def test_how_the_boot_before_ended(
    previous: str | None, was_clean: bool | None, in_a_day: int, expected: list[str]
) -> None:
    sample = BootSample(
        boot_id="b1", previous_boot_id=previous, previous_was_clean=was_clean, unclean_in_a_day=in_a_day
    )
    found = list(host_reboot(sample, HostRebootThresholds()))
    assert [finding.severity.word for finding in found] == expected
    assert {finding.fault for finding in found} <= {"host.reboot_unexpected"}


@given(st.integers(0, 100))
def test_no_number_of_boots_is_more_than_a_warning(in_a_day: int) -> None:
    sample = BootSample(boot_id="b1", previous_boot_id="b0", previous_was_clean=False, unclean_in_a_day=in_a_day)
    (finding,) = host_reboot(sample, HostRebootThresholds())
    assert finding.severity.word in ("info", "warn")
