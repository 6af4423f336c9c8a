"""Processes that the kernel killed for memory: of a job beyond its limit, or because the whole node ran out."""

from __future__ import annotations

import re
from collections.abc import Iterator

from nodewatch.checks._api import Phase, check
from nodewatch.checks._kernel import Line, hits
from nodewatch.model.health import Finding, Remedy, Severity
from nodewatch.model.samples import KmsgSample

_KILLED = r"Kill(?:ed)? process (?P<pid>\d{1,10}),? \((?P<process>[^)]{0,64})\)"
_LINES = (
    Line(
        fault="job.oom",
        pattern=re.compile(r"Memory cgroup out of memory: " + _KILLED),
        severity=Severity.INFO,
        remedy=Remedy.RESTART_APP,
        subject="cgroup",
    ),
    Line(
        fault="host.oom",
        pattern=re.compile(r"Out of memory(?: \([^)]*\))?: " + _KILLED),
        severity=Severity.WARN,
        remedy=Remedy.RESTART_APP,
        subject="memory",
    ),
    Line(
        fault="host.oom_no_victim",
        pattern=re.compile(r"Out of memory and no killable processes|System is deadlocked on memory"),
        severity=Severity.DEGRADED,
        remedy=Remedy.REBOOT,
        subject="memory",
    ),
)
_SERVICES = frozenset(
    {"slurmd", "slurmstepd", "munged", "systemd", "systemd-journal", "dbus-daemon", "sshd", "nodewatch-agent"}
    | {"nv-fabricmanage", "nv-hostengine", "nvidia-persiste", "containerd", "dockerd"}
)
"""Names as the kernel cuts them, at 15 characters."""


@check(reads=KmsgSample, phases=Phase.PERIODIC, lasting=True)
def kernel_oom(sample: KmsgSample) -> Iterator[Finding]:
    """`job.oom` (information: a job met its own limit), `host.oom` (a warning), `host.oom_no_victim` (degraded, reboot).

    A job that is larger than its allocation is no fault of the node. When the node as a whole ran out, what was killed
    may have been a service: the evidence names it, and the check of the services says whether one is missing.
    """
    for hit in hits(sample, ("ut of memory", "deadlocked on memory"), _LINES):
        process = hit.groups.get("process", "")
        yield hit.finding(is_service=process in _SERVICES) if hit.line.fault == "host.oom" else hit.finding()
