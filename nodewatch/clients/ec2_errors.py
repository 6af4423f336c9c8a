"""AWS's refusals as our errors: one sentence each, and told apart by whether waiting may help."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from nodewatch.errors import CapacityError, Ec2Error

# EC2's words for "not now": the same request may succeed later (field notes 8, ParallelCluster's list).
CAPACITY_CODES = frozenset(
    {
        "InsufficientInstanceCapacity",
        "InsufficientHostCapacity",
        "InsufficientReservedInstanceCapacity",
        "InsufficientCapacity",
        "InsufficientCapacityOnOutpost",
        "InsufficientFreeAddressesInSubnet",
        "ReservationCapacityExceeded",
        "MaxSpotInstanceCountExceeded",
        "SpotMaxPriceTooLow",
        "UnfulfillableCapacity",
        "Unsupported",
        "RequestLimitExceeded",
        "InstanceLimitExceeded",
        "VcpuLimitExceeded",
    }
)
_FORBIDDEN_CODES = frozenset({"UnauthorizedOperation", "AccessDenied", "AccessDeniedException"})
_NAMED_ACTION = re.compile(r"perform: ([a-z0-9-]+:[A-Za-z]+)")


@contextmanager
def translated(doing: str, *, service: str = "EC2") -> Iterator[None]:
    """Raises Ec2Error, or CapacityError where waiting may help, for whatever boto3 raises inside."""
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError

    try:
        yield
    except ClientError as error:
        raise refusal(doing, error, service) from error
    except BotoCoreError as error:
        raise Ec2Error(f"{service} could not be asked to {doing}: {error}") from error
    except (ResponseParserError, KeyError, IndexError, TypeError) as error:
        # A proxy's page for one. ResponseParserError is no BotoCoreError.
        raise Ec2Error(
            f"{service} was asked to {doing}, and what answered is not {service}: {str(error).splitlines()[0]}"
        ) from error


def refusal(doing: str, error: Any, service: str = "EC2") -> Ec2Error:
    """Our error for botocore's ClientError."""
    detail = error.response.get("Error", {})
    code, message = str(detail.get("Code", "")), str(detail.get("Message", ""))
    if code in _FORBIDDEN_CODES:
        named = _NAMED_ACTION.search(message)
        needed = named.group(1) if named else f"{service.lower().replace(' ', '')}:{error.operation_name}"
        return Ec2Error(
            f"{service} does not let the controller {doing}: allow {needed} in the IAM role of this machine ({code})",
            code=code,
        )
    kind = CapacityError if code in CAPACITY_CODES else Ec2Error
    return kind(f"{service} refused to {doing}: {code}: {message}", code=code)
