"""EC2's network interfaces (ENA): whether they are up, and how often the instance exceeded what its type allows.

What the kernel answers from its own memory is read in passing; the counters are asked for by a child, see ena_probe.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

from nodewatch.model.network_samples import EnaInterface, EnaSample
from nodewatch.sensors import ena_probe
from nodewatch.sensors.asked import AskedSensor
from nodewatch.sensors.child import Ended
from nodewatch.sensors.machine import first_line
from nodewatch.sensors.reading import Reading

_MANY = 64
"""More network cards than any instance type has."""


def interfaces(directory: Path) -> tuple[str, ...]:
    """The names of the interfaces that the ENA driver runs, below /sys/class/net."""
    found = []
    with contextlib.suppress(OSError):
        for entry in sorted(directory.iterdir()):
            with contextlib.suppress(OSError):
                if (entry / "device" / "driver").readlink().name == "ena":
                    found.append(entry.name)
    return tuple(found[:_MANY])


def parse(text: str, names: Sequence[str]) -> tuple[EnaInterface, ...]:
    """The interfaces `names` with their counters in the probe's output. One that it does not mention says so."""
    counters: dict[str, dict[str, int]] = {name: {} for name in names}
    errors: dict[str, str] = {}
    for line in text.splitlines():
        name, _, rest = line.partition(" ")
        key, _, value = rest.partition(" ")
        if name not in counters:
            continue
        if key == "!":
            errors[name] = value[:200]
        elif value.isascii() and value.isdigit() and len(value) <= 20:
            counters[name][key] = int(value)
    return tuple(
        EnaInterface(
            name=name,
            allowances=counters[name],
            error=errors.get(name) or (None if counters[name] else "the probe said nothing of it"),
        )
        for name in names
    )


class EnaSensor(AskedSensor):
    """Polled source of `EnaSample`; not applicable on a machine without such an interface."""

    name = "ena"
    reads = EnaSample
    what = "the statistics of the ENA interfaces"
    hint = "look for ena in the kernel log"

    def __init__(
        self,
        *,
        deadline_s: float = 10.0,
        directory: Path = Path("/sys/class/net"),
        argv: Sequence[str] | None = None,
    ) -> None:
        """`argv` is the command that prints the counters; the interfaces' names are added at its end."""
        super().__init__(deadline_s=deadline_s)
        script = str(Path(ena_probe.__file__).resolve())
        self._argv = tuple(argv) if argv is not None else (sys.executable, "-I", "-S", script)
        self._directory = directory
        self._names: tuple[str, ...] = ()
        self._were_up: frozenset[str] = frozenset()
        self._before: tuple[float, tuple[EnaInterface, ...]] | None = None

    def question(self, now: float) -> Reading | Sequence[str]:  # noqa: ARG002
        """The command, where there is an interface to ask."""
        self._names = interfaces(self._directory)
        if self._names:
            return (*self._argv, *self._names)
        return Reading(not_applicable="the machine has no ENA interface")

    def answer(self, ended: Ended, now: float) -> Reading:
        """The interfaces, with the reading before."""
        found = tuple(
            EnaInterface(
                name=item.name,
                operstate=first_line(self._directory / item.name / "operstate"),
                allowances=item.allowances,
                error=item.error,
            )
            for item in parse(ended.stdout, self._names)
        )
        self._were_up |= {item.name for item in found if item.operstate == "up"}
        sample = EnaSample(interfaces=found, were_up=self._were_up)
        before, self._before = self._before, (now, found)
        if before is not None and now > before[0]:
            sample = EnaSample(interfaces=found, previous=before[1], interval_s=now - before[0], were_up=self._were_up)
        return Reading(sample=sample)
