"""Documents of EC2: statuses, events that are over, notices of the metadata service and of EventBridge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nodewatch.checks.ec2_events import Thresholds, ec2_events
from nodewatch.checks.ec2_impaired import ec2_impaired
from nodewatch.checks.ec2_notices import Thresholds as Lead
from nodewatch.checks.ec2_notices import ec2_notices
from nodewatch.errors import SensorError
from nodewatch.model.cloud_samples import Ec2Sample
from nodewatch.sensors.recorded._api import Recording
from nodewatch.sensors.recorded.ec2_status import load


def status(word: str, since: str | None = None) -> dict[str, Any]:
    detail = {"Name": "reachability", "Status": {"ok": "passed", "impaired": "failed"}.get(word, word)}
    return {"Details": [detail | ({"ImpairedSince": since} if since else {})], "Status": word}


def instance(name: str = "i-0a1", **changes: Any) -> dict[str, Any]:
    usual = {
        "AvailabilityZone": "us-east-1a",
        "InstanceId": name,
        "InstanceState": {"Code": 16, "Name": "running"},
        "SystemStatus": status("ok"),
        "InstanceStatus": status("ok"),
        "AttachedEbsStatus": status("ok"),
    }
    return usual | changes


def event(code: str, description: str = "The instance is on a degraded host", **changes: Any) -> dict[str, Any]:
    usual = {
        "InstanceEventId": "instance-event-1",
        "Code": code,
        "Description": description,
        "NotBefore": "2026-03-01T10:00:00.000Z",
    }
    return usual | changes


def read(tmp_path: Path, data: object) -> Ec2Sample:
    path = tmp_path / "out.json"
    path.write_bytes(
        data if isinstance(data, bytes) else data.encode() if isinstance(data, str) else json.dumps(data).encode()
    )
    (sample,) = load(Recording(path=path))
    return sample


def judge(tmp_path: Path, data: object) -> list[tuple[str, str]]:
    sample = read(tmp_path, data)
    return [
        (f.fault, f.subject)
        for f in (*ec2_impaired(sample), *ec2_events(sample, Thresholds()), *ec2_notices(sample, Lead()))
    ]


def test_what_is_well(tmp_path: Path) -> None:
    assert judge(tmp_path, {"InstanceStatuses": [instance(), instance("i-0b2")]}) == []
    assert judge(tmp_path, [instance()]) == []
    over = [event("system-reboot", "[Completed] Scheduled reboot"), event("instance-stop", "[Canceled] x")]
    assert judge(tmp_path, {"InstanceStatuses": [instance(Events=over)]}) == []


def test_impaired_and_scheduled(tmp_path: Path) -> None:
    bad = instance(
        "i-0b2", SystemStatus=status("impaired", "2026-02-03T04:05:06Z"), Events=[event("instance-retirement")]
    )
    sample = read(tmp_path, {"InstanceStatuses": [instance(), bad]})
    assert sample.instances[1].checks[0].impaired_since == "2026-02-03T04:05:06Z"
    assert sample.instances[1].events[0].starts_at == 1772359200.0
    assert judge(tmp_path, {"InstanceStatuses": [instance(), bad]}) == [
        ("ec2.system_impaired", "i-0b2"),
        ("ec2.event", "i-0b2 instance-event-1"),
    ]


@pytest.mark.parametrize("word", ["insufficient-data", "initializing", "", "odd"])
def test_no_answer_yet_is_unknown(tmp_path: Path, word: str) -> None:
    with pytest.raises(SensorError):
        judge(tmp_path, {"InstanceStatuses": [instance(InstanceStatus=status(word))]})


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"action": "terminate", "time": "2026-03-01T10:02:00Z"}, ("ec2.spot_interruption", "this instance")),
        ("2026-03-01T10:02:00Z", ("ec2.spot_interruption", "this instance")),
        ({"noticeTime": "2026-03-01T10:02:00Z"}, ("ec2.rebalance_recommended", "this instance")),
        (
            {
                "detail-type": "EC2 Spot Instance Interruption Warning",
                "detail": {"instance-id": "i-0a1", "instance-action": "stop"},
            },
            ("ec2.spot_interruption", "i-0a1"),
        ),
        (
            {
                "detail-type": "Capacity Block Reservation Expiration Warning",
                "detail": {"capacity-reservation-id": "cr-1"},
            },
            ("ec2.capacity_block_ends", "cr-1"),
        ),
        (
            [
                {
                    "NotBefore": "21 Jan 2026 09:00:43 GMT",
                    "Code": "system-reboot",
                    "EventId": "instance-event-9",
                    "State": "active",
                }
            ],
            ("ec2.event", "this instance instance-event-9"),
        ),
    ],
)
def test_notices(tmp_path: Path, document: object, expected: object) -> None:
    assert judge(tmp_path, document) == [expected]


def test_several_documents_in_one_file(tmp_path: Path) -> None:
    text = (
        json.dumps({"InstanceStatuses": [instance()]})
        + "\n"
        + json.dumps({"noticeTime": "2026-03-01T10:02:00Z"})
        + "\n"
    )
    assert judge(tmp_path, text) == [("ec2.rebalance_recommended", "this instance")]


@pytest.mark.parametrize(
    "document",
    [
        "",
        "[]",
        "{}",
        "404 - Not Found",
        "null",
        {"InstanceStatuses": []},
        {"InstanceStatuses": [{}]},
        {"InstanceStatuses": [{"InstanceId": "i-1"}]},
        {"Reservations": []},
        {"action": "dance", "time": "x"},
        {"detail-type": "EC2 Instance State-change Notification", "detail": {}},
        json.dumps({"InstanceStatuses": [instance()]})[:-5],
        {"InstanceStatuses": [instance(InstanceState={"Code": 80, "Name": "stopped"})]},
        {"InstanceStatuses": [instance(SystemStatus=None)]},
    ],
)
def test_what_tells_nothing_is_never_good(tmp_path: Path, document: object) -> None:
    with pytest.raises(SensorError):
        judge(tmp_path, document)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["impaired", "ok", "terminate"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "InstanceStatuses",
                    "InstanceId",
                    "SystemStatus",
                    "Status",
                    "Details",
                    "Events",
                    "Code",
                    "NotBefore",
                    "action",
                    "time",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(JSON.map(lambda value: json.dumps(value).encode()), st.binary(max_size=60)))
def test_only_sensor_errors_are_raised(tmp_path: Path, data: bytes) -> None:
    try:
        judge(tmp_path, data)
    except SensorError:
        return
    assert data.strip()
