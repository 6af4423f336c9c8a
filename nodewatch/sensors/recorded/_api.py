"""What a recording is, and how the loader of a sensor is found.

`nodewatch replay --sensor fi_info FILE` calls `load` of `fi_info.py`; a dash in a sensor's name is an underscore in its file's.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from nodewatch.errors import SensorError
from nodewatch.model.samples import Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """Output of a tool, or a tree of files, and what is known of the machine that it is from.

    `previous` is an earlier recording of the same, `interval_s` seconds before: counters are judged by their rate then.
    """

    path: Path
    """A file or a directory; `-` is standard input."""
    instance_type: str = ""
    """The EC2 instance type, empty when it is not known: then nothing is expected of counts and bandwidths."""
    previous: Path | None = None
    interval_s: float | None = None

    @property
    def name(self) -> str:
        """The recording in a sentence."""
        return "standard input" if str(self.path) == "-" else str(self.path)

    def open(self) -> BinaryIO:
        """The recording as a stream of bytes. Raises SensorError when it cannot be read."""
        if str(self.path) == "-":
            return sys.stdin.buffer
        try:
            return self.path.open("rb")
        except OSError as error:
            raise SensorError(
                f"{self.path} cannot be read: {error.strerror}: name a file or directory that can be"
            ) from error

    def read(self, *, at_most: int = 64 << 20) -> bytes:
        """The whole recording. Raises SensorError when it cannot be read or is longer than `at_most` bytes."""
        try:
            with self.open() as stream:
                data = stream.read(at_most + 1)
        except OSError as error:
            raise SensorError(f"{self.name} cannot be read: {error.strerror}") from error
        if len(data) > at_most:
            raise SensorError(f"{self.name} is longer than {at_most >> 20} MiB: it is no output of this tool")
        return data


Load = Callable[[Recording], Iterator[Sample]]
"""Yields the samples in a recording, in order; raises SensorError with one sentence when it cannot be understood.

A document that ends early, or that is of another kind, is an error: it is never a sample that looks healthy.
"""


def names() -> list[str]:
    """The sensors that can be read from a recording."""
    package = importlib.import_module("nodewatch.sensors.recorded")
    return sorted(
        info.name.replace("_", "-") if info.name not in _UNDERSCORED else info.name
        for info in pkgutil.iter_modules(package.__path__)
        if not info.name.startswith("_")
    )


def loader(sensor: str) -> Load:
    """The loader of `sensor`. Raises SensorError for a name that is none, with those that are."""
    if sensor not in names():
        raise SensorError(f"no sensor is called {sensor!r}: use one of {', '.join(names())}")
    module = importlib.import_module(f"nodewatch.sensors.recorded.{sensor.replace('-', '_')}")
    load: Load = module.load
    return load


_UNDERSCORED = frozenset({"fi_info", "fi_pingpong"})
"""Tools whose own names have an underscore."""
