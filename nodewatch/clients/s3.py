"""S3 by boto3, for the evidence of machines that are gone."""

from __future__ import annotations

from typing import Any

from nodewatch.clients.ec2_errors import translated
from nodewatch.errors import Ec2Error


class S3:
    """See effects.evidence.EvidenceStore. Credentials, region and endpoint come from boto3's usual places."""

    def __init__(self, *, deadline_s: float = 20.0, client: Any = None) -> None:
        """`client` is a ready boto3 S3 client, for tests. Raises Ec2Error without boto3."""
        self._client = client if client is not None else make_client("s3", deadline_s)

    def put(self, bucket: str, name: str, body: bytes) -> str:
        """See effects.evidence.EvidenceStore."""
        with translated(f"put {name} into the bucket {bucket}", service="S3"):
            self._client.put_object(Bucket=bucket, Key=name, Body=body, ContentType="application/json")
        return f"s3://{bucket}/{name}"


def make_client(service: str, deadline_s: float) -> Any:
    """A boto3 client that does not try again by itself. Raises Ec2Error where none can be made."""
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ImportError as error:
        raise Ec2Error(
            "boto3 is not installed: install the package nodewatch-controller, or `pip install boto3`"
        ) from error
    make: Any = boto3.client
    try:
        return make(
            service,
            # The engine retries by its own rules and writes each try down; boto3's silent retries would hide them.
            config=Config(connect_timeout=5, read_timeout=deadline_s, retries={"total_max_attempts": 1}),
        )
    except (BotoCoreError, ValueError) as error:
        raise Ec2Error(f"no {service.upper()} client could be made: {error}") from error
