"""Neuron devices of this machine by the driver's files below /sys, read by a child: a driver may wait for its device."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from nodewatch.errors import SensorError
from nodewatch.model.cloud_samples import NeuronDevice, NeuronSample
from nodewatch.sensors.commands import CommandSensor, Ran

_TREE = "sys/devices/virtual/neuron_device"
_MODULE = "sys/module/neuron"
_FILES = ("stats/hardware/*", "stats/hardware/*/total", "neuron_core*/stats/status/hw_error/total")
"""Only what a check judges: a device has some hundred counters."""
_LINE = re.compile(r"neuron([0-9]{1,4})/([a-z0-9_/]{1,120}):(.{0,40})", re.ASCII)
_DEVICE = re.compile(r"neuron[0-9]{1,4}", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,20}", re.ASCII)


def argv_for(directory: Path) -> tuple[str, ...]:
    """The command that prints `neuronN/file:value`; a file that vanishes, and a directory, are left out."""
    files = " ".join(f"neuron*/{name}" for name in _FILES)
    return ("sh", "-c", f'cd -- "$1" || exit 3; grep -s "" /dev/null {files}; exit 0', "sh", str(directory))


def parse(text: str, present: Sequence[int]) -> tuple[NeuronDevice, ...]:
    """The devices `present`, with the counters in the command's output. Lines that are none of its own are skipped."""
    ecc: dict[int, dict[str, int]] = {}
    executions: dict[int, dict[str, int]] = {}
    unreadable: dict[int, list[str]] = {}
    for line in text.splitlines():
        match = _LINE.fullmatch(line.strip())
        if match is None:
            continue
        index, parts, value = int(match[1]), match[2].split("/"), match[3].strip()
        if parts[:2] == ["stats", "hardware"] and len(parts) in (3, 4):
            if _NUMBER.fullmatch(value):
                ecc.setdefault(index, {})[parts[2]] = int(value)
            else:
                unreadable.setdefault(index, []).append(parts[2])
        elif parts[-2:] == ["hw_error", "total"] and _NUMBER.fullmatch(value):
            of_device = executions.setdefault(index, {})
            of_device["hw_error"] = of_device.get("hw_error", 0) + int(value)
    return tuple(
        NeuronDevice(
            index=index,
            ecc=ecc.get(index, {}),
            executions=executions.get(index, {}),
            unreadable=tuple(unreadable.get(index, ())),
        )
        for index in sorted(present)
    )


class NeuronMachine:
    """The devices of this machine, and the reading before, so that executions are judged by what they rose."""

    def __init__(self, *, expected: int | None, root: Path = Path("/")) -> None:
        """`expected` is how many devices the machine should have; None when it is not known."""
        self._expected = expected
        self._root = root
        self._before: tuple[NeuronDevice, ...] | None = None

    def absent(self) -> str | None:
        """Why there is nothing to read: no device is expected, and no driver is loaded."""
        if self._expected or (self._root / _TREE).is_dir() or (self._root / _MODULE).is_dir():
            return None
        return "the machine has no Neuron device"

    def commands(self, now: float) -> list[tuple[str, ...]]:  # noqa: ARG002
        """What to run. Raises SensorError where the driver is missing: that is the image's fault, and no device's."""
        if not (self._root / _TREE).is_dir():
            if not (self._root / _MODULE).is_dir():
                raise SensorError("the Neuron driver is not loaded: look at modprobe neuron and its package")
            return []
        return [argv_for(self._root / _TREE)]

    def parse(self, outputs: Sequence[Ran], now: float) -> NeuronSample:  # noqa: ARG002
        """The sample. Raises SensorError."""
        devices: tuple[NeuronDevice, ...] = ()
        if outputs:
            ran = outputs[0].must_have_run()
            if ran.returncode != 0:
                raise SensorError(f"the Neuron devices cannot be read ({ran.last_line}): look at /{_TREE}")
            names = [entry.name for entry in (self._root / _TREE).iterdir()]
            present = [int(name.removeprefix("neuron")) for name in names if _DEVICE.fullmatch(name)]
            devices = parse(ran.stdout, present)
        before, self._before = self._before, devices
        return NeuronSample(
            devices=devices,
            count=len(devices),
            expected=self._expected,
            previous=before,
            said=None if outputs else "the driver is loaded and shows no device",
            source="sysfs",
        )


def neuron_sensor(machine: NeuronMachine, *, deadline_s: float = 10.0) -> CommandSensor:
    """The sensor of `machine`."""
    return CommandSensor(
        "neuron",
        NeuronSample,
        commands=machine.commands,
        parse=machine.parse,
        absent=machine.absent,
        deadline_s=deadline_s,
    )
