"""InfiniBand and RoCE devices of this machine (mlx5 and others that are no EFA) and what their counters rose."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nodewatch.model.fabric_samples import IbSample
from nodewatch.sensors.efa import AMAZON
from nodewatch.sensors.fabric import TREE, Devices, FabricSensor
from nodewatch.sensors.reading import Reading

_COUNTERS = (
    "symbol_error",
    "link_error_recovery",
    "link_downed",
    "port_rcv_errors",
    "port_xmit_discards",
    "local_link_integrity_errors",
    "excessive_buffer_overrun_errors",
)
_HW_COUNTERS = ("rnr_nak_retry_err", "local_ack_timeout_err")


class IbSensor(FabricSensor):
    """Polled source of `IbSample`; not applicable on a machine that has no such device."""

    name = "ib"
    reads = IbSample
    what = "the counters of the InfiniBand devices"
    hint = "look for their driver in the kernel log"
    files = (
        "device/vendor",
        "device/device",
        "board_id",
        "hca_type",
        "ports/*/state",
        "ports/*/phys_state",
        "ports/*/link_layer",
        "ports/*/rate",
        *(f"ports/*/counters/{name}" for name in _COUNTERS),
        *(f"ports/*/hw_counters/{name}" for name in _HW_COUNTERS),
    )

    def __init__(self, *, deadline_s: float = 10.0, directory: Path = TREE, argv: Sequence[str] | None = None) -> None:
        super().__init__(deadline_s=deadline_s, directory=directory, argv=argv)

    def is_own(self, vendor: str) -> bool:
        """Anybody's hardware that is not Amazon's."""
        return vendor not in ("", AMAZON)

    def reading_of(self, devices: Devices, previous: Devices | None, interval_s: float | None) -> Reading:
        """The sample."""
        if not devices and self._earlier.is_empty:
            return Reading(not_applicable="the machine has no InfiniBand device")
        return Reading(sample=IbSample(devices=devices, previous=previous, interval_s=interval_s))
