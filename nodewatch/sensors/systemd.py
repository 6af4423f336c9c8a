"""systemd's services, asked by a child with a deadline: systemctl waits for a manager that may be stuck."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nodewatch.model.host_samples import Unit, UnitSample
from nodewatch.sensors.child import Child
from nodewatch.sensors.procfs import read_uptime
from nodewatch.sensors.reading import Reading

UNITS = (
    "munge.service",
    "slurmd.service",
    "nvidia-fabricmanager.service",
    "nvidia-persistenced.service",
    "nvidia-dcgm.service",
)
_PROPERTIES = "Id,LoadState,ActiveState,SubState,UnitFileState,Result,NRestarts"
_NVSWITCH = ("proc/driver/nvidia-nvswitch", "dev/nvidia-nvswitchctl")


def parse_units(text: str) -> tuple[Unit, ...]:
    """The installed units in the output of `systemctl show`: blocks of `Key=value` with a blank line between."""
    units = []
    for block in text.split("\n\n"):
        values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if values.get("Id") and values.get("LoadState", "not-found") != "not-found":
            restarts = values.get("NRestarts", "")
            units.append(
                Unit(
                    name=values["Id"].removesuffix(".service"),
                    load=values["LoadState"],
                    active=values.get("ActiveState", ""),
                    sub=values.get("SubState", ""),
                    file=values.get("UnitFileState", ""),
                    result=values.get("Result", ""),
                    restarts=int(restarts) if restarts.isdecimal() else 0,
                )
            )
    return tuple(units)


class UnitSensor:
    """Polled source of `UnitSample`. One child at a time: one that hangs is remembered and no second one is started."""

    name = "units"
    reads = UnitSample

    def __init__(
        self,
        units: Sequence[str] = UNITS,
        *,
        deadline_s: float,
        argv: Sequence[str] = ("systemctl", "show"),
        root: Path = Path("/"),
    ) -> None:
        """`argv` is the command that is asked; properties and units are added at its end."""
        self._argv = (*argv, f"--property={_PROPERTIES}", "--", *units)
        self._deadline_s = deadline_s
        self._root = root
        self._child: Child | None = None
        self._started_at: float | None = None
        self._reading: Reading | None = None

    def start(self, now: float) -> None:
        """Ask, unless the last question is still without an answer."""
        if self._started_at is not None:
            return
        self._started_at = now
        self._reading = None
        if not (self._root / "run/systemd/system").is_dir():
            self._reading = Reading(not_applicable="systemd does not run this machine")
        elif self._child is None:
            try:
                self._child = Child(self._argv, now=now)
            except OSError as error:
                self._reading = Reading(error=f"{self._argv[0]} cannot be started ({error.strerror})")

    def filenos(self) -> tuple[int, ...]:
        """The child's output while it is awaited."""
        waits = self._started_at is not None and self._child is not None and self._reading is None
        return (self._child.fileno(),) if waits and self._child is not None else ()

    def due_at(self) -> float | None:
        """The deadline."""
        if self._started_at is None:
            return None
        return 0.0 if self._reading is not None else self._started_at + self._deadline_s

    def result(self, now: float) -> Reading | None:
        """The sample when the child has ended, an error when it is late."""
        if self._started_at is None:
            return None
        ended = self._child.poll() if self._child is not None else None
        if ended is not None:
            self._child = None
            if self._reading is None:
                self._reading = self._read(ended.returncode, ended.stdout, ended.stderr)
        elif self._reading is None and now >= self._started_at + self._deadline_s:
            self._reading = Reading(
                error=f"systemctl has not answered for {self._deadline_s:g} s: look at systemd with journalctl -b"
            )
        if self._reading is None:
            return None
        reading, self._reading, self._started_at = self._reading, None, None
        return reading

    def close(self) -> None:
        """End the child, if there is one."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    def _read(self, returncode: int, stdout: str, stderr: str) -> Reading:
        if returncode != 0:
            lines = stderr.strip().splitlines()
            return Reading(
                error=f"systemctl failed with status {returncode}: {lines[-1][:200] if lines else 'no reason given'}"
            )
        try:
            uptime_s = read_uptime(self._root / "proc/uptime")
        except (OSError, ValueError, IndexError) as error:
            return Reading(error=f"the time since the boot cannot be read ({error})")
        has_nvswitch = any((self._root / name).exists() for name in _NVSWITCH)
        return Reading(sample=UnitSample(units=parse_units(stdout), has_nvswitch=has_nvswitch, uptime_s=uptime_s))
