"""The health of the NVMe controllers of this machine: what the kernel thinks of them, and what their own log says."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nodewatch.errors import SensorError
from nodewatch.model.host_samples import NvmeDevice, NvmeSample
from nodewatch.sensors import machine, nvme_probe
from nodewatch.sensors.commands import CommandSensor, Ran

_NAME = re.compile(r"nvme[0-9]{1,4}", re.ASCII)
_LOG_BYTES = 512
_KELVIN = 273
_RATE_S = 480.0
"""Errors are judged by what they rose since a reading of ten minutes before, less the jitter of the cadence."""


def with_log(device: NvmeDevice, log: bytes) -> NvmeDevice:
    """The device with what its health log says (NVM Express Base Specification, log page 02h). Raises ValueError."""
    if len(log) != _LOG_BYTES:
        raise ValueError(f"a health log has {_LOG_BYTES} bytes, this one {len(log)}")
    kelvin = int.from_bytes(log[1:3], "little")
    return replace(
        device,
        critical_warning=log[0],
        temperature_c=kelvin - _KELVIN if kelvin else None,
        spare_percent=log[3],
        spare_threshold_percent=log[4],
        used_percent=log[5],
        media_errors=int.from_bytes(log[160:176], "little"),
    )


class NvmeMachine:
    """The controllers of this machine, and the reading before."""

    def __init__(
        self,
        *,
        in_container: bool,
        root: Path = Path("/"),
        argv: Sequence[str] = (sys.executable, "-I", "-S", nvme_probe.__file__),
    ) -> None:
        """`argv` asks the devices that are added at its end."""
        self._in_container = in_container
        self._root = root
        self._argv = tuple(argv)
        self._before: tuple[float, tuple[NvmeDevice, ...]] | None = None

    def absent(self) -> str | None:
        """Why nothing is asked: there is no controller, or it is the host's."""
        if self._in_container:
            return "a container has its host's disks"
        return None if self._controllers() else "the machine has no NVMe controller"

    def commands(self, now: float) -> list[tuple[str, ...]]:  # noqa: ARG002
        """One probe of all that are alive: one that is being reset would only make it wait."""
        live = [device for device in self._controllers() if device.state in ("live", "")]
        return [(*self._argv, *(str(self._root / "dev" / device.name) for device in live))] if live else []

    def parse(self, outputs: Sequence[Ran], now: float) -> NvmeSample:
        """The sample. Raises SensorError when the probe proves nothing and no controller is known to be dead."""
        devices = {device.name: device for device in self._controllers()}
        problem = None
        for ran in outputs:
            problem = problem or ran.problem
            for line in ran.stdout.splitlines():
                with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError):
                    told = json.loads(line)
                    device = devices[told["name"]]
                    devices[device.name] = (
                        with_log(device, bytes.fromhex(told["log"]))
                        if "log" in told
                        else replace(device, unreadable=str(told["why"])[:200])
                    )
        found = tuple(devices[name] for name in sorted(devices))
        if problem is not None and all(device.state in ("live", "") for device in found):
            raise SensorError(f"the NVMe controllers were not read: {problem}")
        before = self._before
        if before is None or not 0 <= now - before[0] < _RATE_S:
            self._before = (now, found)
        if before is None or now <= before[0]:
            return NvmeSample(devices=found)
        return NvmeSample(devices=found, previous=before[1], interval_s=now - before[0])

    def _controllers(self) -> tuple[NvmeDevice, ...]:
        try:
            places = sorted((self._root / "sys/class/nvme").iterdir())
        except OSError:
            return ()
        return tuple(
            NvmeDevice(
                name=place.name,
                model=machine.first_line(place / "model"),
                state=machine.first_line(place / "state"),
            )
            for place in places
            if _NAME.fullmatch(place.name)
        )


def nvme_sensor(controllers: NvmeMachine, *, deadline_s: float = 20.0) -> CommandSensor:
    """The sensor of the controllers."""
    return CommandSensor(
        "nvme",
        NvmeSample,
        commands=controllers.commands,
        parse=controllers.parse,
        absent=controllers.absent,
        deadline_s=deadline_s,
    )
