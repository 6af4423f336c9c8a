"""Tasks that the kernel saw blocked for minutes: a file system, a disk or a driver that does not answer."""

from __future__ import annotations

import re
from collections.abc import Iterator

from nodewatch.checks._api import Phase, check
from nodewatch.checks._kernel import Line, hits
from nodewatch.model.health import Finding, Severity
from nodewatch.model.samples import KmsgSample

_LINES = (
    Line(
        fault="host.hung_task",
        pattern=re.compile(
            r"INFO: task (?P<subject>.{1,32}?):(?P<pid>\d{1,10}) blocked (?:in I/O wait )?for more than (?P<seconds>\d+) s"
        ),
        severity=Severity.WARN,
    ),
)


@check(reads=KmsgSample, phases=Phase.PERIODIC, lasting=True)
def kernel_hung_task(sample: KmsgSample) -> Iterator[Finding]:
    """`host.hung_task` on the task's name, a warning: it waits for something else, whose own check says what is broken.

    A client of a parallel file system waits for its server as long as it takes (field notes 10), so a hung task alone
    proves nothing about the node.
    """
    for hit in hits(sample, ("INFO: task ",), _LINES):
        yield hit.finding()
