"""Shared file systems that are not mounted, do not answer, or answer with an error.

What follows from each is chosen so that a file system's trouble never costs a machine:

* not mounted: no job can run here, and mounting it (a service) is the cure. Fatal, restart_service.
* no answer within the deadline: Lustre clients block through a failover and go on by themselves, with their jobs. So jobs that
  run may finish (degraded), a new one is not let in (policy/verdicts denies its prolog), and a human looks: nothing that we
  could do to this node cures a server.
* an error for an answer (stale handle, transport endpoint not connected): as for no answer.
"""

from __future__ import annotations

from collections.abc import Iterator

from nodewatch.checks._api import Phase, check
from nodewatch.model.health import Finding, Remedy, Severity
from nodewatch.model.samples import MountProbe, MountSample


@check(reads=MountSample, phases=Phase.PROLOG | Phase.EPILOG | Phase.PERIODIC | Phase.DEEP, every_s=10.0)
def shared_filesystem(sample: MountSample) -> Iterator[Finding]:
    """`filesystem.not_mounted`, `filesystem.hung` or `filesystem.error` on each mount point that has it."""
    for mount in sample.mounts:
        if not mount.is_mounted:
            yield _finding(mount, "filesystem.not_mounted", Severity.FATAL, Remedy.RESTART_SERVICE)
        elif not mount.answered:
            yield _finding(mount, "filesystem.hung", Severity.DEGRADED, Remedy.HUMAN)
        elif mount.error is not None:
            yield _finding(mount, "filesystem.error", Severity.DEGRADED, Remedy.HUMAN)


def _finding(mount: MountProbe, fault: str, severity: Severity, remedy: Remedy) -> Finding:
    return Finding(
        fault=fault,
        subject=mount.path,
        severity=severity,
        remedy=remedy,
        evidence={
            "type": mount.fs_type,
            "seconds": round(mount.seconds, 3),
            "error": mount.error,
            "source": "mountinfo" if not mount.is_mounted else "probe",
        },
    )
