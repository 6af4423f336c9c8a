"""What follows from EC2's status documents, and what does not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pytest

from nodewatch.controller.cloud_watch import CloudWatch, judge
from nodewatch.errors import Ec2Error
from nodewatch.testing import FakeClock

NOW = 1_764_000_000.0  # 2025-11-24T16:00:00Z


def status(instance: str, *, system: str = "ok", instance_status: str = "ok", **more: Any) -> dict[str, Any]:
    return {
        "InstanceId": instance,
        "InstanceState": {"Code": 16, "Name": "running"},
        "SystemStatus": {"Status": system, "Details": [{"Name": "reachability", "Status": "failed"}]},
        "InstanceStatus": {"Status": instance_status, "Details": []},
        **more,
    }


def faults(documents: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    return {instance: [f.fault for f in found] for instance, found in judge(documents, NOW).items()}


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (status("i-1"), []),
        (status("i-1", system="impaired"), ["ec2.system_impaired"]),
        (status("i-1", instance_status="impaired"), ["ec2.instance_impaired"]),
        (status("i-1", system="initializing"), []),
        (status("i-1", system="insufficient-data"), []),
    ],
)
def test_status_checks(document: Mapping[str, Any], expected: list[str]) -> None:
    assert faults([document]) == {"i-1": expected}


def test_an_event_that_is_completed_is_none_and_one_that_is_near_is() -> None:
    near = {"Code": "system-reboot", "Description": "reboot", "NotBefore": "2025-11-24T16:30:00+00:00"}
    done = {**near, "Description": "[Completed] reboot"}
    assert faults([status("i-1", Events=[done])]) == {"i-1": []}
    assert len(faults([status("i-1", Events=[near])])["i-1"]) == 1


def test_one_instance_that_cannot_be_told_hides_no_other() -> None:
    assert faults([status("i-1", system="initializing"), status("i-2", system="impaired")]) == {
        "i-1": [],
        "i-2": ["ec2.system_impaired"],
    }


class Cloud:
    """EC2, as far as it is asked here."""

    def __init__(self) -> None:
        self.documents: list[dict[str, Any]] = []
        self.error: str | None = None
        self.asked: list[list[str]] = []

    def ask(self, instances: Sequence[str]) -> list[dict[str, Any]]:
        self.asked.append(list(instances))
        if self.error is not None:
            raise Ec2Error(self.error)
        return self.documents


def test_a_finding_keeps_the_time_at_which_it_was_first_seen_and_an_old_picture_is_none() -> None:
    cloud, clock = Cloud(), FakeClock(NOW)
    watch = CloudWatch(ask=cloud.ask, instances=lambda: ["i-2", "i-1"], clock=clock)
    cloud.documents = [status("i-1", system="impaired")]
    watch.look()
    clock.advance(60)
    watch.look()
    (standing,) = watch.findings()["i-1"]
    assert (standing.first_at, standing.last_at, cloud.asked[0]) == (NOW, NOW + 60, ["i-1", "i-2"])

    cloud.error = "RequestLimitExceeded"
    clock.advance(60)
    with pytest.raises(Ec2Error):
        watch.look()
    assert "i-1" in watch.findings(), "one refusal does not make the machine well"
    clock.advance(150)
    assert watch.findings() == {}

    cloud.error, cloud.documents = None, [status("i-1")]
    watch.look()
    cloud.documents = [status("i-1", system="impaired")]
    watch.look()
    assert watch.findings()["i-1"][0].first_at == clock(), "gone and back is a new one"


def test_without_instances_nobody_is_asked() -> None:
    cloud = Cloud()
    watch = CloudWatch(ask=cloud.ask, instances=list, clock=FakeClock(NOW))
    watch.look()
    assert (cloud.asked, watch.findings()) == ([], {})


def test_what_stood_before_a_gap_is_first_seen_after_it() -> None:
    cloud, clock = Cloud(), FakeClock(NOW)
    watch = CloudWatch(ask=cloud.ask, instances=lambda: ["i-1"], clock=clock)
    cloud.documents = [status("i-1", system="impaired")]
    watch.look()
    clock.advance(181)
    assert watch.findings() == {}
    watch.look()
    assert watch.findings()["i-1"][0].first_at == NOW + 181
