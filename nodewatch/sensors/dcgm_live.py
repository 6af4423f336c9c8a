"""DCGM on this machine: its host engine, its releases, and what its background watches found, asked of `dcgmi`.

Nothing is asked on a machine without GPUs, without dcgmi, or where no host engine is meant to run: some sites install DCGM
for its diagnostic alone, and an exporter may have an engine of its own inside.

DCGM's policies are not asked for. `dcgmi policy --get` shows only what is set, and violations reach nobody but a program that
listens for as long as it runs (`--reg`). Each of the seven conditions is judged from its own source instead: double-bit
errors and retired pages, PCIe replays, temperature, power brake and NVLink errors from NVML, Xids from the kernel log.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from nodewatch.errors import SensorError
from nodewatch.model.gpu_samples import DcgmEngineSample, DcgmHealthSample
from nodewatch.sensors import dcgm_health, machine
from nodewatch.sensors.commands import CommandSensor, Ran
from nodewatch.sensors.nvml import has_nvidia_device
from nodewatch.sensors.procfs import NotHere

_VERSION = re.compile(r"^[ \t]{0,40}Version[ \t]{0,40}:[ \t]{0,40}([0-9]{1,4}(?:\.[0-9]{1,6}){1,3})", re.MULTILINE)
_ENGINE = re.compile(r"^[ \t]{0,40}Hostengine build info", re.MULTILINE | re.IGNORECASE)
_UNITS = ("nvidia-dcgm.service", "dcgm.service")


class Dcgm:
    """What both sensors know of DCGM here. `mode` is on (an engine must run), off, or auto (where one is enabled, or has
    answered)."""

    def __init__(
        self,
        *,
        mode: str,
        expected_gpus: int | None,
        root: Path = Path("/"),
        which: Callable[[str], str | None] = shutil.which,
    ) -> None:
        self._mode = mode
        self._expected_gpus = expected_gpus
        self._root = root
        self._which = which
        self._has_answered = False

    def absent(self) -> str | None:
        """Why DCGM is not asked here; None to ask."""
        if self._mode == "off":
            return "dcgm is off in agent.toml"
        if self._expected_gpus == 0:
            return "no GPU is expected on this machine"
        if self._mode == "auto" and self._which("dcgmi") is None:
            return "dcgmi is not installed"
        if self._expected_gpus is None and not has_nvidia_device(self._root / "sys/bus/pci/devices"):
            return "this machine shows no NVIDIA GPU"
        return None

    @property
    def is_expected(self) -> bool:
        """Whether a host engine is meant to run."""
        wanted = self._root / "etc/systemd/system/multi-user.target.wants"
        # The name of a link says that the unit is enabled, wherever it leads.
        return self._mode == "on" or self._has_answered or any((wanted / unit).is_symlink() for unit in _UNITS)

    def engine(self, outputs: Sequence[Ran], now: float) -> DcgmEngineSample:  # noqa: ARG002
        """The sample in what `dcgmi -v` printed. Raises NotHere or SensorError."""
        (ran,) = outputs
        if not self.is_expected and not _ENGINE.search(ran.text):
            raise NotHere(f"no host engine of DCGM is enabled here, and none answers ({ran.problem or ran.last_line})")
        driver = machine.first_line(self._root / "sys/module/nvidia/version") or None
        if ran.is_late:
            return DcgmEngineSample(is_answering=False, said=ran.problem or "", driver_version=driver)
        text = ran.must_have_run().text
        engine = _ENGINE.search(text)
        client = _VERSION.search(text)
        if client is None:
            raise SensorError(f"dcgmi -v told no version ({ran.last_line}): run it by hand")
        self._has_answered = self._has_answered or engine is not None
        version = None if engine is None else _VERSION.search(text, engine.end())
        return DcgmEngineSample(
            is_answering=engine is not None,
            said="" if engine is not None else "dcgmi -v has no answer from a host engine",
            version=client[1] if engine is None or client.start() < engine.start() else None,
            engine_version=None if version is None else version[1],
            driver_version=driver,
        )

    def health(self, outputs: Sequence[Ran], now: float) -> DcgmHealthSample:  # noqa: ARG002
        """The sample in what `dcgmi health -c -j` printed. Raises NotHere or SensorError."""
        (ran,) = outputs
        if not self.is_expected and "Overall Health" not in ran.stdout:
            raise NotHere(f"no host engine of DCGM is enabled here, and none answers ({ran.problem or ran.last_line})")
        text = ran.must_have_run().stdout
        if "watches not enabled" in text.lower() and self._mode != "on":
            raise NotHere("DCGM watches nothing: switch the watches on with dcgmi health -s a")
        *_, last = dcgm_health.parse(text or ran.stderr)
        return last


def dcgm_sensors(dcgm: Dcgm, *, deadline_s: float) -> list[CommandSensor]:
    """The host engine's sensor and the watches'."""
    return [
        CommandSensor(
            "dcgm-engine",
            DcgmEngineSample,
            commands=lambda _now: [("dcgmi", "-v")],
            parse=dcgm.engine,
            absent=dcgm.absent,
            deadline_s=deadline_s,
        ),
        CommandSensor(
            "dcgm-health",
            DcgmHealthSample,
            commands=lambda _now: [("dcgmi", "health", "-c", "-j")],
            parse=dcgm.health,
            absent=dcgm.absent,
            deadline_s=deadline_s,
        ),
    ]
