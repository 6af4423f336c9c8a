"""disk_write: what the kernel's error means by its name, wrong bytes before all, and no speed judged unless a site says so."""

from __future__ import annotations

import pytest

from nodewatch.checks.disk_write import Thresholds, disk_write
from nodewatch.errors import SensorError
from nodewatch.model.health import Finding
from nodewatch.model.stress_samples import DiskProbe, DiskSample

GOOD = DiskProbe(path="/nvme", size=1 << 30, write_mb_per_s=900.0, read_mb_per_s=2000.0, is_direct=True)


def judge(*disks: DiskProbe, thresholds: Thresholds | None = None) -> list[Finding]:
    return list(disk_write(DiskSample(disks=disks), thresholds or Thresholds()))


def failed(error: str, step: str = "write") -> DiskProbe:
    return DiskProbe(path="/bad", size=4 << 20, failed=step, error=error, said="it did not work")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ("EIO", ("disk.error", "fatal", "replace")),
        ("EREMOTEIO", ("disk.error", "fatal", "replace")),
        ("ENODEV", ("disk.error", "fatal", "replace")),
        ("EROFS", ("disk.readonly", "degraded", "reboot")),
        ("EUCLEAN", ("disk.readonly", "degraded", "reboot")),
        ("ESTALE", ("disk.error", "degraded", "human")),
        ("unknown", ("disk.error", "degraded", "human")),
    ],
)
@pytest.mark.parametrize("step", ["open", "write", "sync", "read"])
def test_errors_of_the_kernel(error: str, expected: tuple[str, str, str], step: str) -> None:
    (finding,) = judge(GOOD, failed(error, step))
    assert (finding.fault, finding.severity.word, finding.remedy.word) == expected
    assert (finding.subject, finding.evidence["error"], finding.evidence["failed"]) == ("/bad", error, step)


@pytest.mark.parametrize("error", ["ENOSPC", "EDQUOT", "EACCES", "EPERM", "ENOENT", "ENOTDIR"])
def test_what_says_nothing_of_the_disk_is_unknown(error: str) -> None:
    with pytest.raises(SensorError, match="/bad could not be tested"):
        judge(GOOD, failed(error))
    assert [finding.fault for finding in judge(failed(error), failed("EIO"))] == ["disk.error"]


def test_wrong_bytes_come_before_all() -> None:
    disk = DiskProbe(path="/nvme", size=1 << 30, wrong_blocks=3, first_wrong=8192, failed="read", error="ENOENT")
    (finding,) = judge(disk)
    assert (finding.fault, finding.severity.word, finding.remedy.word) == ("disk.wrong_bytes", "fatal", "replace")
    assert (finding.evidence["wrong_blocks"], finding.evidence["first_wrong"]) == (3, 8192)


def test_speed_is_judged_where_a_site_says_so() -> None:
    assert judge(GOOD) == []
    for thresholds in (Thresholds(least_write_mb_per_s=901.0), Thresholds(least_read_mb_per_s=2001.0)):
        (finding,) = judge(GOOD, thresholds=thresholds)
        assert (finding.fault, finding.remedy.word, finding.evidence["write_mb_per_s"]) == (
            "disk.slow",
            "reboot",
            900.0,
        )
    assert judge(GOOD, thresholds=Thresholds(least_write_mb_per_s=900.0, least_read_mb_per_s=2000.0)) == []
