"""The identities of a machine's GPUs, told to the controller as soon as the driver has given them.

After a replacement the controller compares them: a new instance may sit on the very board that failed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from nodewatch.model.gpu_samples import GpuSample
from nodewatch.sensors.reading import PolledSensor, Reading

_NO_SERIAL = frozenset({"", "0", "n/a", "none", "unknown", "[n/a]"})
"""What the driver says of a GPU without a serial number (nvidia-smi prints [N/A])."""


def identities(sample: GpuSample) -> tuple[str, ...]:
    """UUIDs and serial numbers of the GPUs, as the controller compares them."""
    found = {gpu.uuid for gpu in sample.gpus if gpu.uuid}
    found |= {
        f"serial {gpu.serial}" for gpu in sample.gpus if gpu.serial and gpu.serial.strip().lower() not in _NO_SERIAL
    }
    return tuple(sorted(found))


class Identified:
    """A sensor as it is; what its samples say of the hardware is told once, and again when there is more of it."""

    def __init__(self, sensor: PolledSensor, tell: Callable[[Sequence[str]], object]) -> None:
        self._sensor = sensor
        self._tell = tell
        self._told: frozenset[str] = frozenset()

    def __getattr__(self, name: str) -> Any:
        """Whatever else the sensor offers."""
        return getattr(self._sensor, name)

    @property
    def name(self) -> str:
        """See PolledSensor."""
        return self._sensor.name

    @property
    def reads(self) -> type[Any]:
        """See PolledSensor."""
        return self._sensor.reads

    def start(self, now: float) -> None:
        """See PolledSensor."""
        self._sensor.start(now)

    def filenos(self) -> tuple[int, ...]:
        """See PolledSensor."""
        return self._sensor.filenos()

    def due_at(self) -> float | None:
        """See PolledSensor."""
        return self._sensor.due_at()

    def result(self, now: float) -> Reading | None:
        """See PolledSensor."""
        reading = self._sensor.result(now)
        if reading is not None and isinstance(reading.sample, GpuSample):
            # A GPU that is lost later stays told: it is the one that must not come back.
            known = self._told | frozenset(identities(reading.sample))
            if known != self._told:
                self._told = known
                self._tell(sorted(known))
        return reading

    def close(self) -> None:
        """See PolledSensor."""
        self._sensor.close()
