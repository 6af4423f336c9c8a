"""host_nvme: what the kernel and the disk itself say."""

from __future__ import annotations

from typing import Any

import pytest

from nodewatch.checks._api import load_checks
from nodewatch.model.health import Remedy, Severity
from nodewatch.model.host_samples import NvmeDevice, NvmeSample

Outline = list[tuple[str, Severity, Remedy]]
LOCAL = "Amazon EC2 NVMe Instance Storage"
WARNING: Outline = [("host.nvme_warning", Severity.WARN, Remedy.NONE)]
FAILING: Outline = [("host.nvme_failing", Severity.DEGRADED, Remedy.REPLACE)]


def disk(**values: Any) -> NvmeDevice:
    return NvmeDevice(**{"name": "nvme1", "model": LOCAL, "state": "live", **values})


def judged(now: NvmeDevice, then: NvmeDevice | None = None) -> Outline:
    previous = None if then is None else (then,)
    findings = load_checks()["host_nvme"].run(NvmeSample(devices=(now,), previous=previous, interval_s=600.0))
    assert all(finding.subject == "nvme1" for finding in findings)
    return [(finding.fault, finding.severity, finding.remedy) for finding in findings]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, []),
        ({"critical_warning": 0, "used_percent": 99, "media_errors": 3}, []),
        ({"unreadable": "NVMe status 0x2"}, []),
        ({"state": ""}, []),
        ({"state": "resetting"}, []),
        ({"state": "dead"}, [("host.nvme_dead", Severity.DEGRADED, Remedy.REBOOT)]),
        ({"critical_warning": 0x01}, WARNING),
        ({"critical_warning": 0x02}, WARNING),
        ({"critical_warning": 0x10}, WARNING),
        ({"critical_warning": 0x20}, WARNING),
        ({"critical_warning": 0x04}, FAILING),
        ({"critical_warning": 0x08}, FAILING),
        ({"critical_warning": 0x0B}, FAILING),
        (
            {"critical_warning": 0x08, "model": "Amazon Elastic Block Store"},
            [("host.nvme_failing", Severity.DEGRADED, Remedy.HUMAN)],
        ),
        ({"used_percent": 100}, [("host.nvme_worn", Severity.WARN, Remedy.NONE)]),
    ],
)
def test_states_and_warnings(values: dict[str, Any], expected: Outline) -> None:
    assert judged(disk(**values)) == expected


@pytest.mark.parametrize(
    ("then", "now", "expected"),
    [
        (3, 3, []),
        (3, 4, [("host.nvme_media_errors", Severity.WARN, Remedy.NONE)]),
        (3, 0, []),
        (None, 4, []),
        (3, None, []),
    ],
)
def test_media_errors_are_judged_by_their_rise(then: int | None, now: int | None, expected: Outline) -> None:
    assert judged(disk(media_errors=now), disk(media_errors=then)) == expected
