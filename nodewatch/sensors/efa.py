"""EFA devices of this machine, what their counters rose, and the network interfaces of the same PCI function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from nodewatch.model.fabric_samples import EfaSample
from nodewatch.sensors.fabric import TREE, Devices, FabricSensor
from nodewatch.sensors.procfs import read_uptime
from nodewatch.sensors.reading import Reading

AMAZON = "0x1d0f"
"""Amazon's PCI vendor."""
_OF_DEVICE = ("cmds_err", "no_completion_cmds", "submitted_cmds", "completed_cmds")
_OF_PORT = (
    "rx_drops",
    "retrans_timeout_events",
    "unresponsive_remote_events",
    "impaired_remote_conn_events",
    "rdma_read_wr_err",
    "rdma_write_wr_err",
)


class EfaSensor(FabricSensor):
    """Polled source of `EfaSample`; not applicable on a machine that has no such device and should have none."""

    name = "efa"
    reads = EfaSample
    what = "the counters of the EFA devices"
    hint = "look for efa in the kernel log"
    files = (
        "device/vendor",
        "device/net/*/operstate",
        "ports/*/state",
        "ports/*/phys_state",
        *(f"hw_counters/{name}" for name in _OF_DEVICE),
        *(f"ports/*/hw_counters/{name}" for name in _OF_PORT),
    )

    def __init__(
        self,
        *,
        expected: int | None,
        grace_s: float = 0.0,
        deadline_s: float = 10.0,
        directory: Path = TREE,
        argv: Sequence[str] | None = None,
        uptime: Callable[[], float] = read_uptime,
    ) -> None:
        """`expected` is how many devices the machine should have; None when it is not known: then as many as were seen.

        Until `grace_s` after the boot devices that are missing may still come.
        """
        super().__init__(deadline_s=deadline_s, directory=directory, argv=argv)
        self._expected = expected
        self._grace_s = grace_s
        self._uptime = uptime

    def is_own(self, vendor: str) -> bool:
        """Amazon's."""
        return vendor == AMAZON

    def reading_of(self, devices: Devices, previous: Devices | None, interval_s: float | None) -> Reading:
        """The sample."""
        if not devices and not self._expected and self._earlier.is_empty:
            return Reading(not_applicable="the machine has no EFA device")
        expected = self._earlier.most if self._expected is None else self._expected
        settles_in_s = 0.0
        if len(devices) < expected:
            try:
                settles_in_s = max(0.0, self._grace_s - self._uptime())
            except (OSError, ValueError, IndexError) as error:
                return Reading(error=f"the time since the boot cannot be read ({error}): look at /proc/uptime")
        return Reading(
            sample=EfaSample(
                devices=devices,
                expected=expected,
                previous=previous,
                interval_s=interval_s,
                settles_in_s=settles_in_s,
            )
        )
