"""What EC2's instance metadata service says of this instance: notices that it goes away, and scheduled events.

The service does not tell when a capacity block ends (no category of its metadata does), so that comes from the
configuration. It is asked every time only where notices come at short notice (spot, interruptible reservations); elsewhere
once a minute, and what it said is handed out again meanwhile.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from nodewatch.errors import SensorError
from nodewatch.model.cloud_samples import Ec2Instance, Ec2Notice, Ec2Sample
from nodewatch.sensors import imds_probe
from nodewatch.sensors.asked import AskedSensor
from nodewatch.sensors.child import Ended
from nodewatch.sensors.machine import first_line
from nodewatch.sensors.reading import Reading
from nodewatch.sensors.recorded.ec2_status import HERE, epoch, take

USUAL_URL = "http://169.254.169.254"
"""Other clouds answer at this address too, in other words."""
_LIFE_CYCLE = "instance-life-cycle"
_INSTANCE_ID = "instance-id"
_EVENTS = "events/maintenance/scheduled"
_PATHS = (_LIFE_CYCLE, _INSTANCE_ID, _EVENTS, "spot/instance-action", "events/recommendations/rebalance")
_STEADY = frozenset({"on-demand", "scheduled", "capacity-block"})
"""Life cycles in which nothing is announced two minutes ahead (EC2 API: InstanceLifecycle)."""
_SLOW_S = 55.0
"""A minute, less what the agent's cadence of five seconds may be early. Scheduled events come days ahead."""
_AGAIN_S = 9.0
"""After an answer that could not be used."""
_QUIET_S = 300.0
"""Where the service is switched off."""
_MANY = 100
"""More events than that are no instance's."""


def is_ec2(dmi: Path = Path("/sys/devices/virtual/dmi/id")) -> bool:
    """Whether the firmware is Amazon's: `Amazon EC2` on Nitro, `4.11.amazon` on Xen."""
    return any("amazon" in first_line(dmi / name).lower() for name in ("sys_vendor", "bios_version"))


class ImdsSensor(AskedSensor):
    """Polled source of `Ec2Sample`; not applicable where the service is switched off or the machine is no EC2 instance."""

    name = "imds"
    reads = Ec2Sample
    what = "the instance metadata"
    hint = "try it with curl on the node, or set imds_url to an empty text"

    def __init__(
        self,
        url: str,
        *,
        is_ec2: bool,
        capacity_block_ends: str = "",
        deadline_s: float = 10.0,
        clock: Callable[[], float] = time.time,
        argv: Sequence[str] | None = None,
    ) -> None:
        """`url` is where the service listens, empty: it is not asked. `capacity_block_ends` is a time, empty: none.

        At its usual address it is asked on EC2 alone. `argv` is the command; host, port and paths are added at its end.
        """
        super().__init__(deadline_s=deadline_s)
        script = str(Path(imds_probe.__file__).resolve())
        self._argv = tuple(argv) if argv is not None else (sys.executable, "-I", "-S", script)
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._absent: str | None = None
        if not url:
            self._absent = "instance metadata is not asked for: imds_url is empty"
        elif not is_ec2 and url.rstrip("/") == USUAL_URL:
            self._absent = "this machine is no EC2 instance: its firmware is not Amazon's"
        self._block: tuple[Ec2Notice, ...] = ()
        if capacity_block_ends:
            self._block = (
                Ec2Notice(
                    kind="capacity_block",
                    subject="capacity block",
                    action="configured",
                    at=capacity_block_ends,
                    ends_at=epoch(capacity_block_ends),
                    is_announced=False,
                ),
            )
        self._clock = clock
        self._last: Reading | None = None
        self._ask_at = 0.0

    def question(self, now: float) -> Reading | Sequence[str]:
        """The command; what was said last while it is not yet time to ask again."""
        if self._absent is not None:
            return self._with_block(Reading(not_applicable=self._absent))
        if self._last is not None and now < self._ask_at:
            return self._again(self._last)
        return (*self._argv, self._host, str(self._port), *_PATHS)

    def answer(self, ended: Ended, now: float) -> Reading:
        """The sample in the probe's lines."""
        try:
            reading, wait_s = self._understood(ended.stdout)
        except SensorError as error:
            reading, wait_s = Reading(error=str(error)), _AGAIN_S
        self._last, self._ask_at = self._with_block(reading), now + wait_s
        return self._last

    def _understood(self, text: str) -> tuple[Reading, float]:
        lines = [line.split(" ") for line in text.splitlines()]
        if lines and lines[0][0] == "!":
            return self._refused(" ".join(lines[0][1:]))
        answers = {line[0]: (line[1], line[2]) for line in lines if len(line) == 3}
        bodies: dict[str, str] = {}
        for path in _PATHS:
            status, body = answers.get(path, ("0", ""))
            if status == "200":
                bodies[path] = _text(body)
            elif status != "404":
                # 404 is the service's way to say that there is nothing to tell.
                raise SensorError(f"the instance metadata answers {path} with status {status}: it is asked again")
        sample = self._sample(bodies)
        is_steady = bodies.get(_LIFE_CYCLE, "").strip() in _STEADY
        return Reading(sample=sample), _SLOW_S if is_steady else 0.0

    def _sample(self, bodies: dict[str, str]) -> Ec2Sample:
        instances: list[Ec2Instance] = []
        notices: list[Ec2Notice] = []
        for path, body in bodies.items():
            if path in (_LIFE_CYCLE, _INSTANCE_ID):
                continue
            try:
                document = json.loads(body)
            except (ValueError, RecursionError) as error:
                raise SensorError(f"the instance metadata answers {path} with something that is no JSON") from error
            if path == _EVENTS and document == []:
                continue
            if isinstance(document, list) != (path == _EVENTS) or len(document) > _MANY:
                raise SensorError(f"the instance metadata answers {path} with something else than EC2's documents")
            take(document, instances, notices)
        told = bodies.get(_INSTANCE_ID, "").strip()
        subject = told if re.fullmatch(r"i-[0-9a-f]{8,17}", told) else HERE
        return Ec2Sample(
            instances=tuple(replace(instance, instance_id=subject) for instance in instances),
            notices=tuple(replace(notice, subject=subject) for notice in notices),
            read_at=self._clock(),
            source="instance metadata",
        )

    def _refused(self, why: str) -> tuple[Reading, float]:
        if why == "token status 403":
            # AWS: the request is not allowed or the service is turned off. That is the site's choice, and lasts.
            return Reading(not_applicable="instance metadata is switched off for this instance"), _QUIET_S
        if why.startswith("token status"):
            raise SensorError(
                f"{self._host} gives no IMDSv2 token ({why[6:]}): check imds_url, or set it to an empty text"
            )
        if why.startswith("token "):
            raise SensorError(
                f"the token of the instance metadata does not arrive ({why[6:]}): in a container the hop limit must be "
                "2 or more (modify-instance-metadata-options --http-put-response-hop-limit)"
            )
        raise SensorError(
            f"the instance metadata cannot be reached at {self._host} ({why.removeprefix('connect ')}): "
            "check routes and packet filters, or set imds_url to an empty text"
        )

    def _again(self, reading: Reading) -> Reading:
        if isinstance(reading.sample, Ec2Sample):
            return Reading(sample=replace(reading.sample, read_at=self._clock()))
        return reading

    def _with_block(self, reading: Reading) -> Reading:
        """The reading with the configured end of a capacity block, which is known even where nobody can be asked."""
        if not self._block or reading.error is not None:
            return reading
        sample = reading.sample
        if not isinstance(sample, Ec2Sample):
            sample = Ec2Sample(read_at=self._clock(), source="agent.toml")
        return Reading(sample=replace(sample, notices=(*sample.notices, *self._block)))


def _text(body: str) -> str:
    try:
        return bytes.fromhex(body).decode("utf-8", "replace")
    except ValueError as error:
        raise SensorError("the probe of the instance metadata printed something else than it should") from error
