"""EFA devices as /sys/class/infiniband shows them, from a recorded tree of directories."""

from __future__ import annotations

from collections.abc import Iterator

from nodewatch.errors import SensorError
from nodewatch.knowledge import instance_types
from nodewatch.model.fabric_samples import EfaSample
from nodewatch.sensors.recorded._api import Recording
from nodewatch.sensors.recorded._infiniband import is_efa, read_tree


def load(recording: Recording) -> Iterator[EfaSample]:
    """One sample of the EFA devices; a device that does not say what it is counts as one.

    Raises SensorError when the tree is not there, and when it holds none of them although nobody expected that.
    """
    row = instance_types.TABLE.get(recording.instance_type)
    expected = None if row is None else row.efa_devices
    devices = tuple(device for device in read_tree(recording.path) if is_efa(device) is not False)
    previous = None
    if recording.previous is not None:
        previous = tuple(device for device in read_tree(recording.previous) if is_efa(device) is not False)
    if not devices and not previous and not expected:
        raise SensorError(f"{recording.path} holds no EFA device, and how many there should be is not known")
    yield EfaSample(devices=devices, expected=expected, previous=previous, interval_s=recording.interval_s)
