"""What EC2 says of the machines under the nodes: status checks and scheduled events, judged by the same checks as recordings.

It is asked on a thread of its own: for a thousand instances that takes seconds, and the tick does not wait for it. A picture
that is too old is no picture: nothing follows from it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from nodewatch.checks import ec2_events, ec2_impaired
from nodewatch.checks._api import CheckSpec, specs_in
from nodewatch.errors import NodewatchError, SensorError
from nodewatch.model.cloud_samples import Ec2Instance, Ec2Notice, Ec2Sample
from nodewatch.model.health import Finding, StandingFinding
from nodewatch.sensors.recorded.ec2_status import take

_log = logging.getLogger(__name__)
Findings = Mapping[str, tuple[StandingFinding, ...]]
"""By instance id."""
_SPECS = (*specs_in(ec2_impaired), *specs_in(ec2_events))


def judge(documents: Iterable[Mapping[str, Any]], now: float) -> dict[str, list[Finding]]:
    """The findings of DescribeInstanceStatus by instance id; an answer that cannot be told gives none, good or bad."""
    instances: list[Ec2Instance] = []
    notices: list[Ec2Notice] = []
    take({"InstanceStatuses": list(documents)}, instances, notices)
    return {each.instance_id: _of_one(each, now) for each in instances}


def _of_one(instance: Ec2Instance, now: float) -> list[Finding]:
    sample = Ec2Sample(instances=(instance,), read_at=now)
    found: list[Finding] = []
    for spec in _SPECS:
        found += _run(spec, sample)
    return found


def _run(spec: CheckSpec, sample: Ec2Sample) -> Sequence[Finding]:
    try:
        return spec.run(sample)
    except SensorError:
        return ()


class CloudWatch:
    """Asks EC2 each `period_s` seconds and keeps the newest picture."""

    def __init__(
        self,
        *,
        ask: Callable[[Sequence[str]], Iterable[Mapping[str, Any]]],
        instances: Callable[[], Sequence[str]],
        clock: Callable[[], float],
        period_s: float = 60.0,
    ) -> None:
        """`ask` gives the documents of instances; `instances` tells which are of interest now."""
        self._ask = ask
        self._instances = instances
        self._clock = clock
        self._period_s = period_s
        self._standing: dict[tuple[str, str, str], float] = {}
        self._findings: Findings = {}
        self._read_at = float("-inf")
        self._stop = threading.Event()

    def findings(self) -> Findings:
        """The findings of the newest picture; none when it is older than three periods."""
        return self._findings if self._clock() - self._read_at <= 3 * self._period_s else {}

    def look(self) -> None:
        """Ask once. Raises Ec2Error or SensorError; the picture before stays then, until it is too old."""
        wanted = sorted(self._instances())
        if not wanted:
            self._findings, self._read_at = {}, self._clock()
            return
        found = judge(self._ask(wanted), self._clock())
        now = self._clock()
        if now - self._read_at > 3 * self._period_s:
            # What stood before a gap in which nothing was known may have gone and come back.
            self._standing = {}
        seen = {
            (instance, finding.fault, finding.subject): self._standing.get(
                (instance, finding.fault, finding.subject), now
            )
            for instance, findings in found.items()
            for finding in findings
        }
        self._standing = seen
        self._findings = {
            instance: tuple(
                StandingFinding(finding=f, first_at=seen[(instance, f.fault, f.subject)], last_at=now) for f in findings
            )
            for instance, findings in found.items()
            if findings
        }
        self._read_at = now

    def run(self) -> None:
        """Until stopped. One failure is logged once, until it is another one."""
        last = ""
        while not self._stop.is_set():
            try:
                self.look()
                last = ""
            except NodewatchError as error:
                if str(error) != last:
                    _log.warning("%s: status checks and events of EC2 are not known", error)
                last = str(error)
            self._stop.wait(self._period_s)

    def stop(self) -> None:
        """End `run` at its next wait."""
        self._stop.set()
