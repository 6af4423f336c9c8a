"""`dcgmi diag -j`, or the table of `dcgmi diag`, as it was printed."""

from __future__ import annotations

from collections.abc import Iterator

from nodewatch.model.gpu_samples import DcgmDiagSample
from nodewatch.sensors.dcgm_diag import parse
from nodewatch.sensors.recorded._api import Recording

_MAX_BYTES = 32 << 20


def load(recording: Recording) -> Iterator[DcgmDiagSample]:
    """Each run in the recording. Raises SensorError when there is none, or one that is cut off."""
    yield from parse(recording.read(at_most=_MAX_BYTES).decode("utf-8", "replace"))
