"""What AWS says of an instance, and what a Neuron (Trainium, Inferentia) machine says of its devices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Ec2Event:
    """A scheduled event that is neither completed nor cancelled. Times as AWS wrote them; `starts_at` in seconds
    (epoch)."""

    event_id: str
    code: str
    description: str = ""
    not_before: str | None = None
    not_after: str | None = None
    deadline: str | None = None
    """Until when its start may be put off."""
    starts_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ec2StatusCheck:
    """One status check: `kind` is system, instance, attached_ebs, performance or application; `status` is EC2's own
    word."""

    kind: str
    status: str
    impaired_since: str | None = None
    details: tuple[str, ...] = ()
    """Such as `reachability failed`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ec2Instance:
    """One instance: its state and status checks where they were asked for, and its events."""

    instance_id: str
    state: str = ""
    checks: tuple[Ec2StatusCheck, ...] = ()
    events: tuple[Ec2Event, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ec2Notice:
    """A notice that capacity goes away: `kind` is spot_interruption, rebalance or capacity_block."""

    kind: str
    subject: str
    action: str = ""
    """terminate, stop, hibernate; or the state of a capacity block."""
    at: str | None = None
    ends_at: float | None = None
    """Of a capacity block, in seconds (epoch)."""
    is_announced: bool = True
    """False for an end that is only known from a contract, and not announced as near."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ec2Sample:
    """All that was read. `read_at` (epoch seconds) is None in a recording: how near an event is, is not judged then."""

    instances: tuple[Ec2Instance, ...] = ()
    notices: tuple[Ec2Notice, ...] = ()
    read_at: float | None = None
    source: str = "EC2"


@dataclass(frozen=True, slots=True, kw_only=True)
class NeuronDevice:
    """One Neuron device. `ecc` by counter name since the driver was loaded, `executions` by status, of all its cores."""

    index: int
    ecc: Mapping[str, int] = field(default_factory=dict)
    executions: Mapping[str, int] = field(default_factory=dict)
    unreadable: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NeuronSample:
    """The Neuron devices as one tool or tree shows them.

    `count` is None where the source does not list all devices. `runtime_errors` are those of the last period alone, by
    class.
    """

    devices: tuple[NeuronDevice, ...] = ()
    count: int | None = None
    expected: int | None = None
    runtime_errors: Mapping[str, int] = field(default_factory=dict)
    previous: tuple[NeuronDevice, ...] | None = None
    said: str | None = None
    """The tool's own words when it found no device."""
    source: str = ""
