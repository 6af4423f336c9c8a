"""A Lustre client, asked through its own tools where a Lustre file system is mounted, and nowhere else.

Each tool may wait for a server as long as that takes, so each has its deadline and its child. Whether the mount itself answers
is the probe of the mounts' business (mounts.py); here it is asked which server does not, and what the network says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nodewatch.errors import SensorError
from nodewatch.model.storage_samples import HsmFile, LustreSample, LustreUsage
from nodewatch.sensors.commands import CommandSensor, Ran
from nodewatch.sensors.lustre_text import LustreText
from nodewatch.sensors.mounts import parse_mountinfo

_SPACE_EVERY_S = 270.0
"""A question for space goes to every server: once in five minutes (less the jitter of the cadence) is what its check wants."""
_WELL = frozenset({"ACTIVE", "FULL", "IDLE"})
_HEALTH = ("sys/fs/lustre/health_check", "proc/fs/lustre/health_check")
_MOST_FILES = 32


class LustreClient:
    """What to ask of the client of this machine, and what the answers say. Space is kept between two questions for it."""

    def __init__(
        self, *, hsm_files: Sequence[str] = (), root: Path = Path("/"), mountinfo: Path = Path("/proc/self/mountinfo")
    ) -> None:
        """`hsm_files` are asked for their state in hierarchical storage."""
        self._hsm_files = tuple(hsm_files)[:_MOST_FILES]
        self._root = root
        self._mountinfo = mountinfo
        self._space_at: float | None = None
        self._usages: tuple[LustreUsage, ...] = ()
        self._hsm: tuple[HsmFile, ...] = ()

    def mounts(self) -> tuple[str, ...]:
        """Where Lustre is mounted. Raises OSError."""
        types = parse_mountinfo(self._mountinfo.read_text(encoding="utf-8", errors="replace"))
        return tuple(sorted(path for path, fs_type in types.items() if fs_type == "lustre"))

    def absent(self) -> str | None:
        """Why there is nothing to ask. Raises OSError."""
        return None if self.mounts() else "no Lustre file system is mounted here"

    def commands(self, now: float) -> list[tuple[str, ...]]:
        """What to run now. Raises OSError."""
        asked: list[tuple[str, ...]] = [("lfs", "check", "servers"), ("lnetctl", "net", "show", "-v")]
        health = next((self._root / name for name in _HEALTH if (self._root / name).exists()), None)
        if health is not None:
            asked.append(("cat", str(health)))
        if self._space_at is None or not 0 <= now - self._space_at < _SPACE_EVERY_S:
            for mount in self.mounts():
                asked += [("lfs", "df", mount), ("lfs", "df", "-i", mount)]
            if self._hsm_files:
                asked.append(("lfs", "hsm_state", *self._hsm_files))
        return asked

    def parse(self, outputs: Sequence[Ran], now: float) -> LustreSample:
        """The sample in all that was run. Raises SensorError where something is missing and no server is known to be away."""
        text = LustreText()
        problem: str | None = None
        for ran in outputs:
            why = ran.problem or _says_nothing(ran)
            problem = problem or why
            if why is None:
                for line in ran.text.splitlines():
                    text.take(line)
        sample = text.sample()
        problem = problem or sample.incomplete
        if problem is not None:
            # Half a picture proves no health; a server that it shows to be away is away all the same.
            if all(target.state in _WELL for target in sample.targets):
                raise SensorError(problem)
            return replace(sample, incomplete=problem)
        if any(ran.argv[:2] == ("lfs", "df") for ran in outputs):
            self._space_at, self._usages, self._hsm = now, sample.usages, sample.hsm
        return replace(sample, usages=self._usages, hsm=self._hsm)


def lustre_sensor(client: LustreClient, *, deadline_s: float) -> CommandSensor:
    """The sensor of `client`."""
    return CommandSensor(
        "lustre",
        LustreSample,
        commands=client.commands,
        parse=client.parse,
        absent=client.absent,
        deadline_s=deadline_s,
    )


def _says_nothing(ran: Ran) -> str | None:
    """One sentence when no line of the output is known, which is never a sign of health."""
    alone = LustreText()
    for line in ran.text.splitlines():
        alone.take(line)
    sample = alone.sample()
    tool = ran.argv[:2]
    if tool == ("lfs", "check"):
        is_told = bool(sample.targets)
    elif tool == ("lfs", "df"):
        is_told = bool(sample.usages or sample.targets)
    elif tool == ("lfs", "hsm_state"):
        is_told = bool(sample.hsm)
    elif tool[0] == "lnetctl":
        is_told = bool(sample.interfaces or sample.lnet_error)
    else:
        is_told = sample.health is not None
    said = " ".join(ran.argv[:3])
    return None if is_told else f"{said} told nothing that is known (status {ran.returncode}: {ran.last_line})"
