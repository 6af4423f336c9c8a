"""EC2's status checks and scheduled events of instances, as the API's own documents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from nodewatch.errors import Ec2Error

_AT_ONCE = 100
"""Instance ids in one call (EC2 API reference, DescribeInstanceStatus)."""


def statuses(client: Any, instance_ids: Sequence[str]) -> Iterator[dict[str, Any]]:
    """One document of DescribeInstanceStatus for each of `instance_ids` that runs, times as ISO text.

    `client` is a boto3 EC2 client. Raises Ec2Error with one sentence when EC2 does not answer, or answers no.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    for start in range(0, len(instance_ids), _AT_ONCE):
        chunk = list(instance_ids[start : start + _AT_ONCE])
        try:
            answer = client.describe_instance_status(InstanceIds=chunk)
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            if code == "InvalidInstanceID.NotFound" and len(chunk) > 1:
                # One that is gone makes EC2 refuse all of them: it must not blind us to the others.
                for each in chunk:
                    yield from statuses(client, [each])
                continue
            if code == "InvalidInstanceID.NotFound":
                continue
            raise Ec2Error(f"EC2 refused to tell the status of instances: {error}", code=code) from error
        except BotoCoreError as error:
            raise Ec2Error(f"EC2 did not tell the status of instances: {error}") from error
        for document in answer.get("InstanceStatuses", ()):
            yield _plain(document)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value
