"""JSON of `aws ec2 describe-instance-status`, of the instance metadata service and of EC2's events, also several at once.

From the metadata service: spot/instance-action, events/recommendations/rebalance and events/maintenance/scheduled. From
EventBridge: spot interruption, rebalance recommendation and the end of a capacity block. From `aws ec2 describe-
capacity-reservations`: its end.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from nodewatch.errors import SensorError
from nodewatch.model.cloud_samples import Ec2Event, Ec2Instance, Ec2Notice, Ec2Sample, Ec2StatusCheck
from nodewatch.sensors.recorded._api import Recording
from nodewatch.sensors.recorded._text import decoded, shown

_OVER = re.compile(r"^\s*\[(?:completed|cancell?ed)\]", re.IGNORECASE)
_KINDS = (
    ("SystemStatus", "system"),
    ("InstanceStatus", "instance"),
    ("AttachedEbsStatus", "attached_ebs"),
    ("PerformanceStatus", "performance"),
    ("ApplicationStatus", "application"),
)
_MANY = 10_000
HERE = "this instance"
"""The metadata service does not say which instance it speaks of."""


def load(recording: Recording) -> Iterator[Ec2Sample]:
    """One sample of all documents in the recording. Raises SensorError for one that is none of those above."""
    text = decoded(recording.read()).strip()
    instances: list[Ec2Instance] = []
    notices: list[Ec2Notice] = []
    if re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", text):
        # spot/termination-time, the older form of the notice, is a bare time.
        notices.append(Ec2Notice(kind="spot_interruption", subject=HERE, action="terminate", at=text))
    else:
        for document in _documents(text, str(recording.path)):
            take(document, instances, notices)
    if not instances and not notices:
        raise SensorError(f"{recording.path} names no instance: ask with --include-all-instances and the instance's id")
    if len(instances) > _MANY:
        raise SensorError(f"{recording.path} names more than {_MANY} instances")
    yield Ec2Sample(instances=tuple(instances), notices=tuple(notices))


def _documents(text: str, name: str) -> Iterator[Any]:
    decoder = json.JSONDecoder()
    position = 0
    while position < len(text):
        try:
            document, position = decoder.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            raise SensorError(
                f"{name} is no JSON ({shown(str(error))}): record aws ec2 describe-instance-status"
            ) from error
        yield document
        while position < len(text) and text[position].isspace():
            position += 1


def take(document: object, instances: list[Ec2Instance], notices: list[Ec2Notice]) -> None:
    """Add what `document` says. Raises SensorError for one that is none of EC2's. The live sensor reads with it too."""
    if isinstance(document, list):
        _take_list(document, instances)
        return
    if not isinstance(document, dict):
        raise SensorError("the document is no JSON object or list: record aws ec2 describe-instance-status")
    statuses, reservations = document.get("InstanceStatuses"), document.get("CapacityReservations")
    if isinstance(statuses, list):
        instances.extend(_instance(item) for item in statuses)
    elif isinstance(reservations, list):
        notices.extend(notice for item in reservations if (notice := _reservation(item)) is not None)
        if not reservations:
            raise SensorError("the list of capacity reservations is empty: nothing is known of any")
    elif "detail-type" in document:
        notices.append(_event_bridge(document))
    elif "noticeTime" in document:
        notices.append(Ec2Notice(kind="rebalance", subject=HERE, at=_string(document, "noticeTime")))
    elif "action" in document and "time" in document:
        action = _string(document, "action") or ""
        if action not in ("terminate", "stop", "hibernate"):
            raise SensorError(f"the spot notice has the action {shown(action)!r}: it is none of EC2's")
        notices.append(Ec2Notice(kind="spot_interruption", subject=HERE, action=action, at=_string(document, "time")))
    elif "InstanceId" in document:
        instances.append(_instance(document))
    else:
        raise SensorError(
            f"the JSON object has none of EC2's names ({shown(', '.join(map(str, document)), at_most=80)}): "
            "record aws ec2 describe-instance-status"
        )


def _take_list(items: list[object], instances: list[Ec2Instance]) -> None:
    """A list of statuses (`--query InstanceStatuses`), or of events as the metadata service lists them."""
    if not items:
        raise SensorError("the document is an empty list: what of, is not known")
    if all(isinstance(item, dict) and "InstanceId" in item for item in items):
        instances.extend(_instance(item) for item in items)
    elif all(isinstance(item, dict) and "Code" in item and "NotBefore" in item for item in items):
        events = tuple(event for item in items if (event := _event(item)) is not None)
        instances.append(Ec2Instance(instance_id=HERE, events=events))
    else:
        raise SensorError("the JSON list holds neither instance statuses nor events: record describe-instance-status")


def _instance(item: object) -> Ec2Instance:
    if not isinstance(item, dict) or not isinstance(item.get("InstanceId"), str):
        raise SensorError("an instance status has no InstanceId: it is none of EC2's")
    checks = []
    for name, kind in _KINDS:
        found = item.get(name)
        if found is None:
            continue
        if not isinstance(found, dict):
            raise SensorError(f"{name} of {item['InstanceId']} is no object")
        checks.append(_status_check(kind, found))
    events = item.get("Events")
    if events is not None and not isinstance(events, list):
        raise SensorError(f"Events of {item['InstanceId']} is no list")
    state = item.get("InstanceState")
    if not checks and state is None and events is None:
        raise SensorError(f"nothing is told of {item['InstanceId']}: no state, no status, no events")
    return Ec2Instance(
        instance_id=item["InstanceId"],
        state=(_string(state, "Name") or "") if isinstance(state, dict) else "",
        checks=tuple(checks),
        events=tuple(event for entry in events or () if (event := _event(entry)) is not None),
    )


def _status_check(kind: str, found: Mapping[str, Any]) -> Ec2StatusCheck:
    details = found.get("Details")
    details = [entry for entry in details if isinstance(entry, dict)] if isinstance(details, list) else []
    since = [text for entry in (found, *details) if (text := _string(entry, "ImpairedSince")) is not None]
    status = _string(found, "Status") or ("impaired" if since else "")
    return Ec2StatusCheck(
        kind=kind,
        status=status,
        impaired_since=min(since, default=None),
        details=tuple(f"{entry.get('Name')} {entry.get('Status')}" for entry in details[:16]),
    )


def _event(entry: object) -> Ec2Event | None:
    """The event, or None for one that is over: EC2 lists those for a week more."""
    if not isinstance(entry, dict) or not isinstance(entry.get("Code"), str):
        raise SensorError("a scheduled event has no code: it is none of EC2's")
    description = _string(entry, "Description") or ""
    if _OVER.match(description) or str(entry.get("State", "")).lower() in ("completed", "canceled", "cancelled"):
        return None
    not_before = _string(entry, "NotBefore")
    return Ec2Event(
        event_id=_string(entry, "InstanceEventId") or _string(entry, "EventId") or entry["Code"],
        code=entry["Code"],
        description=shown(description),
        not_before=not_before,
        not_after=_string(entry, "NotAfter"),
        deadline=_string(entry, "NotBeforeDeadline"),
        starts_at=epoch(not_before),
    )


def _event_bridge(document: Mapping[str, Any]) -> Ec2Notice:
    kind = str(document["detail-type"]).lower()
    detail = document.get("detail")
    detail = detail if isinstance(detail, dict) else {}
    subject = _string(detail, "instance-id") or HERE
    if "spot instance interruption" in kind:
        action = _string(detail, "instance-action") or "terminate"
        return Ec2Notice(kind="spot_interruption", subject=subject, action=action, at=_string(document, "time"))
    if "rebalance recommendation" in kind:
        return Ec2Notice(kind="rebalance", subject=subject, at=_string(document, "time"))
    if "capacity block" in kind and "expiration" in kind:
        block = _string(detail, "capacity-reservation-id") or _string(detail, "capacity-block-id") or "capacity block"
        end = _string(detail, "end-date") or _string(detail, "end-time")
        return Ec2Notice(kind="capacity_block", subject=block, action="expiring", at=end, ends_at=epoch(end))
    raise SensorError(f"the event {shown(kind)!r} says nothing of an instance's health")


def _reservation(item: object) -> Ec2Notice | None:
    if not isinstance(item, dict) or not isinstance(item.get("CapacityReservationId"), str):
        raise SensorError("a capacity reservation has no CapacityReservationId: it is none of EC2's")
    end, state = _string(item, "EndDate"), (_string(item, "State") or "").lower()
    return Ec2Notice(
        kind="capacity_block",
        subject=item["CapacityReservationId"],
        action=state,
        at=end,
        ends_at=epoch(end),
        is_announced=state in ("expired", "cancelled", "failed", "unavailable"),
    )


def _string(entry: Mapping[str, Any], name: str) -> str | None:
    value = entry.get(name)
    if isinstance(value, bool) or value is None:
        return None
    return shown(str(value)) if isinstance(value, str | int | float) else None


def epoch(text: str | None) -> float | None:
    """Seconds since the epoch of a time in one of AWS's forms: ISO 8601, `21 Jan 2026 09:00:43 GMT`, or a number."""
    if text is None:
        return None
    try:
        value = float(text)
        return value if math.isfinite(value) else None
    except ValueError:
        pass
    for parse in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            moment = parse(text)
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        except (ValueError, TypeError, OverflowError, IndexError):
            continue
    return None
