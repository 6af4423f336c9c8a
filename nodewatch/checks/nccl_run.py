"""NCCL test runs that failed, hung or crashed.

What a failure amounts to is read from the program's own words. One machine that cannot run a collective on its own GPUs
is impaired; of several machines nobody knows which one it was, so nothing is done to any of them before they were
paired anew. A run that was started wrongly (invalid usage, more GPUs than the machine has) says nothing of the machine:
unknown, never a fault.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from nodewatch.checks._api import Phase, check
from nodewatch.errors import SensorError
from nodewatch.knowledge import instance_types
from nodewatch.model.fabric_samples import NcclSample
from nodewatch.model.health import Finding, Remedy, Severity

_MISUSED = re.compile(
    r"invalid usage|invalid argument|not implemented|network \S.* not found|unrecognized option|command not found",
    re.IGNORECASE,
)
_LOST = re.compile(r"uncorrectable ECC|fallen off the bus|GPU is lost|device-side|Xid", re.IGNORECASE)
_HUNG = re.compile(r"TIME LIMIT|Test timeout|timeout: sending|timed out", re.IGNORECASE)
_STOPPED = re.compile(r"CANCELLED AT", re.IGNORECASE)
_TOO_MANY = re.compile(r"Invalid number of GPUs: (\d+) requested but only (\d+) were found", re.IGNORECASE)
_SERIOUS = re.compile(
    r"async (?:fatal )?event|async error|completion (?:from peer|with error)|vendor err", re.IGNORECASE
)
"""Among NCCL's warnings, those that tell of a transfer that failed; a network that is not there is warned of on good
machines."""


_NO_ANSWER = re.compile(r"unresponsive|handshake failed|connection timed out|RC: -?11[03]\b", re.IGNORECASE)
_SECURITY_GROUP = (
    "messages between machines got no answer: where EFA works within one machine, most often the security group lacks a rule, "
    "in and out, for all traffic of itself (the group's own id; 0.0.0.0/0 does not admit EFA)"
)
"""Field notes 3.4; libfabric's EFA provider words it `Unresponsive receiver (reachable by EFA device but handshake failed)`."""


@check(reads=NcclSample, phases=Phase.DEEP, every_s=3600.0)
def nccl_run(sample: NcclSample) -> Iterator[Finding]:
    """`nccl.failed`, `nccl.hung` or `nccl.gpu_error`; `nccl.warned` for transfers that failed in a run that ended.

    Raises SensorError for a run that was cut off or started wrongly, when nothing else is wrong.
    """
    hosts = tuple(dict.fromkeys(host for run in sample.runs for host in run.hosts))
    failures = [line for line in sample.failures if not _MISUSED.search(line)]
    told = [
        line for line in failures if not re.search(r": Test failure|exited|exit code", line, re.IGNORECASE)
    ] or failures
    if len(told) < len(sample.failures) and any(_MISUSED.search(line) for line in sample.failures):
        # What follows an invalid usage is its consequence.
        told = [line for line in told if _LOST.search(line) or _HUNG.search(line)]
    found = _judge(told, sample, hosts)
    if found is not None:
        yield found
        return
    for line in sample.warnings:
        if _SERIOUS.search(line):
            yield _finding("nccl.warned", Severity.WARN, Remedy.HUMAN, [line], hosts)
            return
    if sample.failures:
        raise SensorError(f"the NCCL test was started wrongly or stopped ({sample.failures[0]}): run it again")
    for run in sample.runs:
        if run.unreadable:
            raise SensorError(f"the NCCL table has a row that cannot be read ({run.unreadable[0]}): run the test again")
        if not run.is_finished:
            raise SensorError(
                "the NCCL table has no footer: the run did not end, or its output was cut off: run it again"
            )
        if not run.rows:
            raise SensorError("the NCCL table has no rows: run the test again")


def _judge(lines: list[str], sample: NcclSample, hosts: tuple[str, ...]) -> Finding | None:
    for line in lines:
        if _LOST.search(line):
            remedy = Remedy.HUMAN if len(hosts) > 1 else Remedy.RESET_GPU
            return _finding("nccl.gpu_error", Severity.FATAL, remedy, [line], hosts)
    for line in lines:
        fewer = _TOO_MANY.search(line)
        if fewer:
            row = instance_types.TABLE.get(sample.instance_type)
            if row is None or int(fewer[2]) >= row.gpus:
                return None
            return _finding("nccl.failed", Severity.DEGRADED, Remedy.REBOOT, [line], hosts)
    for line in lines:
        if _HUNG.search(line):
            return _finding("nccl.hung", Severity.DEGRADED, _remedy(hosts), lines, hosts)
    rest = [line for line in lines if not _STOPPED.search(line)]
    return _finding("nccl.failed", Severity.DEGRADED, _remedy(hosts), rest, hosts) if rest else None


def _remedy(hosts: tuple[str, ...]) -> Remedy:
    return Remedy.HUMAN if len(hosts) > 1 else Remedy.REBOOT


def _finding(fault: str, severity: Severity, remedy: Remedy, lines: list[str], hosts: tuple[str, ...]) -> Finding:
    is_unanswered = len(hosts) > 1 and any(_NO_ANSWER.search(line) for line in lines)
    means = {"means": _SECURITY_GROUP} if is_unanswered else {}
    return Finding(
        fault=fault,
        subject=",".join(hosts[:8]) or "nccl",
        severity=severity,
        remedy=remedy,
        evidence={"said": lines[:5], "hosts": list(hosts[:64]), **means, "source": "nccl-tests"},
    )
