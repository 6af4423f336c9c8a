"""InfiniBand and RoCE devices as /sys/class/infiniband shows them, from a recorded tree of directories."""

from __future__ import annotations

from collections.abc import Iterator

from nodewatch.errors import SensorError
from nodewatch.model.fabric_samples import IbSample
from nodewatch.sensors.recorded._api import Recording
from nodewatch.sensors.recorded._infiniband import is_efa, read_tree


def load(recording: Recording) -> Iterator[IbSample]:
    """One sample of the devices that are no EFA. Raises SensorError when the tree is not there or holds none."""
    devices = tuple(device for device in read_tree(recording.path) if not is_efa(device))
    previous = None
    if recording.previous is not None:
        previous = tuple(device for device in read_tree(recording.previous) if not is_efa(device))
    if not devices and not previous:
        raise SensorError(
            f"{recording.path} holds no InfiniBand device: record /sys/class/infiniband of a machine with one"
        )
    yield IbSample(devices=devices, previous=previous, interval_s=recording.interval_s)
