"""What the mlx5 driver says of its InfiniBand and Ethernet adapters: firmware that died, commands without an answer."""

from __future__ import annotations

import re
from collections.abc import Iterator

from nodewatch.checks._api import Phase, check
from nodewatch.checks._kernel import Line, hits
from nodewatch.model.health import Finding, Remedy, Severity
from nodewatch.model.samples import KmsgSample

_MLX5 = r"mlx5_core (?P<subject>[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f])(?: \S{1,16})?: .{0,80}?"
_LINES = (
    Line(
        fault="network.mlx5_health",
        # health.c of the driver; severities are those of the kernel's log, 3 is an error.
        pattern=re.compile(
            _MLX5 + r"(?:Fatal error \d{1,6} detected|device's health compromised - reached miss count"
            r"|synd 0x[1-9a-f][0-9a-f]{0,3}: (?P<syndrome>.{1,60})"
            r"|Health issue observed, (?P<issue>.{1,60}), severity\([0-3]\)"
            r"|health recovery (?:flow aborted|failed))"
        ),
        severity=Severity.DEGRADED,
        remedy=Remedy.REBOOT,
    ),
    Line(
        fault="network.mlx5_no_answer",
        pattern=re.compile(
            _MLX5 + r"(?P<command>\w{1,40}\(0x[0-9a-f]{1,6}\)) .{0,40}timeout\. Will cause a leak of a command"
        ),
        severity=Severity.DEGRADED,
        remedy=Remedy.REBOOT,
    ),
    Line(
        fault="network.mlx5_not_started",
        pattern=re.compile(
            _MLX5 + r"(?:mlx5_init_one|mlx5_load_one|mlx5_function_setup) failed with error code (?P<error>-\d{1,5})"
        ),
        severity=Severity.DEGRADED,
        remedy=Remedy.REBOOT,
    ),
    Line(
        fault="network.mlx5_module",
        pattern=re.compile(_MLX5 + r"Port module event\[error\]: module (?P<module>\d{1,3}), (?P<said>.{1,80})"),
        severity=Severity.WARN,
        remedy=Remedy.HUMAN,
    ),
    Line(
        fault="network.mlx5_queue_stuck",
        pattern=re.compile(
            _MLX5 + r"(?:TX timeout detected|RX timeout on channel|NETDEV WATCHDOG: )"
            r"|NETDEV WATCHDOG: (?P<subject2>\S{1,16}) \(mlx5_core\): transmit queue \d+ timed out"
        ),
        severity=Severity.WARN,
    ),
    Line(
        fault="network.mlx5_slot_power",
        # Said at each start of many healthy machines whose slot promises less than the card may ask for.
        pattern=re.compile(_MLX5 + r"Detected insufficient power on the PCIe slot \((?P<watts>\d{1,4})W\)"),
        severity=Severity.INFO,
    ),
)


@check(reads=KmsgSample, phases=Phase.PERIODIC | Phase.DEEP, lasting=True)
def kernel_mlx5(sample: KmsgSample) -> Iterator[Finding]:
    """`network.mlx5_health`, `network.mlx5_no_answer` and `network.mlx5_not_started` on the adapter's PCI address (degraded,
    reboot: its firmware is loaded anew then); `network.mlx5_module` (a warning: cable or transceiver),
    `network.mlx5_queue_stuck` (a warning: the driver recovers by itself), `network.mlx5_slot_power` (information).

    NVSentinel replaces the machine for the first two at once; a reboot comes first here, and the ladder does the rest.
    Whether a link is up is for the check of the ports to say, never for a line of the log.
    """
    for hit in hits(sample, ("mlx5_core",), _LINES):
        yield hit.finding()
