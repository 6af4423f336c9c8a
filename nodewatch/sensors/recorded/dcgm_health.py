"""`dcgmi health -c`, with or without -j, as it was printed."""

from __future__ import annotations

from collections.abc import Iterator

from nodewatch.model.gpu_samples import DcgmHealthSample
from nodewatch.sensors.dcgm_health import parse
from nodewatch.sensors.recorded._api import Recording

_MAX_BYTES = 16 << 20


def load(recording: Recording) -> Iterator[DcgmHealthSample]:
    """Each report in the recording. Raises SensorError when there is none, or one that is cut off."""
    yield from parse(recording.read(at_most=_MAX_BYTES).decode("utf-8", "replace"))
