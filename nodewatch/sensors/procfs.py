"""The host itself, read in passing: memory, processors, processes, space, clock and boots.

Every reading takes far less than a millisecond (that of the processes some ten milliseconds on a large machine), and none
asks anything that can hang: network file systems are left to the probe of the mounts, which does so in a child.
"""

from __future__ import annotations

import ctypes
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from nodewatch.errors import SensorError
from nodewatch.knowledge.instance_types import TABLE
from nodewatch.model.host_samples import (
    BlockedProcess,
    BootSample,
    ClockSample,
    HostSample,
    ProcessSample,
    Space,
    SpaceSample,
)
from nodewatch.sensors import machine
from nodewatch.sensors.mounts import parse_mountinfo
from nodewatch.sensors.reading import Reading

SPACES = ("/", "/var", "/tmp", "/dev/shm")
_REMOTE = ("nfs", "lustre", "fuse", "cifs", "smb", "ceph", "gpfs", "beegfs", "9p", "afs", "weka", "autofs")
_KERNEL_THREAD = 0x00200000
"""PF_KTHREAD in field 9 of /proc/PID/stat (include/linux/sched.h)."""
_STA_UNSYNC = 0x0040
_TIME_ERROR = 5
_DAY_S = 86400.0


class ProcSensor:
    """A polled source that answers at once: `read` is called when a reading begins and its sample is the result.

    `read` may raise SensorError (UNKNOWN) or NotHere (NOT_APPLICABLE); an OSError counts as the first.
    """

    def __init__(
        self, name: str, reads: type[object], read: Callable[[], object], *, on_close: Callable[[], None] | None = None
    ) -> None:
        self.name = name
        self.reads = reads
        self._read = read
        self._on_close = on_close
        self._reading: Reading | None = None

    def start(self, now: float) -> None:  # noqa: ARG002
        """Read."""
        try:
            self._reading = Reading(sample=self._read())
        except NotHere as why:
            self._reading = Reading(not_applicable=str(why))
        except SensorError as error:
            self._reading = Reading(error=str(error))
        except (OSError, ValueError, IndexError) as error:
            self._reading = Reading(error=f"{self.name} cannot be read ({error}): look at /proc and /sys on the node")

    def filenos(self) -> tuple[int, ...]:
        """None: there is nothing to wait for."""
        return ()

    def due_at(self) -> float | None:
        """At once after `start`."""
        return None if self._reading is None else 0.0

    def result(self, now: float) -> Reading | None:  # noqa: ARG002
        """The reading, once."""
        reading, self._reading = self._reading, None
        return reading

    def close(self) -> None:
        """The agent ends."""
        if self._on_close is not None:
            self._on_close()


class NotHere(Exception):  # noqa: N818
    """The question does not apply to this machine."""


def is_container(root: Path = Path("/")) -> bool:
    """Whether this is a container, which has its host's clock, processors and firmware and not its own."""
    return any((root / name).exists() for name in ("run/systemd/container", "run/.containerenv", ".dockerenv"))


def proved_type(configured: str, firmware: str, *, expect_host: bool, in_container: bool) -> str:
    """The instance type that memory and processors are held against, empty for none.

    What the configuration says describes the cluster and may be a wish; the firmware of a real instance says its own type.
    """
    if expect_host:
        return configured or firmware
    return firmware if firmware in TABLE and not in_container else ""


def read_host(instance_type: str, *, cpu: Path = Path("/sys/devices/system/cpu")) -> HostSample:
    """Memory and processors now."""
    # Imported at the first reading: the agent answers hooks before that.
    try:
        import psutil
    except ImportError as error:
        raise SensorError("psutil is not installed: install the agent's package whole") from error
    memory = psutil.virtual_memory()
    present = machine.first_line(cpu / "present")
    return HostSample(
        memory_bytes=memory.total,
        available_bytes=memory.available,
        cpus_online=psutil.cpu_count() or 0,
        cpus_present=count_of(present) if present else None,
        is_smt_off=machine.first_line(cpu / "smt" / "control") in ("off", "forceoff"),
        instance_type=instance_type,
    )


def count_of(ranges: str) -> int:
    """How many numbers a list such as `0-95,97` has. Raises ValueError for any other text."""
    total = 0
    for part in ranges.split(","):
        first, _, last = part.partition("-")
        total += int(last or first) - int(first) + 1
    return total


class ProcessScan:
    """Reads the processes; remembers since when each that waits has been waiting."""

    def __init__(self, proc: Path = Path("/proc"), clock: Callable[[], float] = time.monotonic) -> None:
        self._proc = proc
        self._clock = clock
        self._since: dict[tuple[int, str], tuple[str, float]] = {}

    def __call__(self) -> ProcessSample:
        """The processes now."""
        now = self._clock()
        since: dict[tuple[int, str], tuple[str, float]] = {}
        blocked = []
        processes = zombies = 0
        with os.scandir(self._proc) as entries:
            pids = [entry.name for entry in entries if entry.name.isdigit()]
        for pid in pids:
            try:
                stat = (self._proc / pid / "stat").read_bytes().decode("utf-8", "replace")
            except OSError:
                # It ended meanwhile.
                continue
            # The name stands in parentheses and may hold both: fields are counted from the last one.
            before, _, after = stat.rpartition(")")
            fields = after.split()
            if len(fields) < 20 or int(fields[6]) & _KERNEL_THREAD:
                continue
            processes += 1
            zombies += fields[0] == "Z"
            if fields[0] != "D":
                continue
            key, ticks = (int(pid), fields[19]), f"{fields[11]} {fields[12]}"
            known = self._since.get(key)
            # Two looks at a busy writer find it waiting twice; one that got processor time between was not stuck.
            since[key] = known if known is not None and known[0] == ticks else (ticks, now)
            name = before.partition("(")[2]
            blocked.append(BlockedProcess(pid=int(pid), name=name, seconds=now - since[key][1]))
        self._since = since
        return ProcessSample(processes=processes, blocked=tuple(blocked), zombies=zombies)


def read_spaces(paths: Sequence[str] = SPACES, *, mountinfo: Path = Path("/proc/self/mountinfo")) -> SpaceSample:
    """The room on the file systems that `paths` are on, each file system once, network ones left out."""
    types = parse_mountinfo(mountinfo.read_text(encoding="utf-8", errors="replace"))
    spaces: list[Space] = []
    seen: set[int] = set()
    for path in paths:
        if _type_of(path, types).startswith(_REMOTE):
            continue
        try:
            device = os.stat(path).st_dev  # noqa: PTH116
            stat = os.statvfs(path)
        except FileNotFoundError:
            continue
        if device in seen or not stat.f_blocks:
            continue
        seen.add(device)
        spaces.append(
            Space(
                path=path,
                bytes=stat.f_blocks * stat.f_frsize,
                free_bytes=stat.f_bavail * stat.f_frsize,
                inodes=stat.f_files,
                free_inodes=stat.f_favail,
            )
        )
    return SpaceSample(spaces=tuple(spaces))


def _type_of(path: str, types: Mapping[str, str]) -> str:
    here = Path(path)
    for point in (here, *here.parents):
        found = types.get(str(point))
        if found is not None:
            return found
    return ""


class _Timex(ctypes.Structure):
    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        # The rest is not read; the kernel writes 208 bytes in all.
        ("rest", ctypes.c_char * 256),
    )


def read_clock(*, in_container: bool, uptime: Path = Path("/proc/uptime")) -> ClockSample:
    """The kernel's clock discipline. Raises NotHere in a container, SensorError when the kernel does not say."""
    if in_container:
        raise NotHere("a container has its host's clock")
    timex = _Timex()
    state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(timex))
    if state < 0:
        raise SensorError(f"the clock cannot be asked ({os.strerror(ctypes.get_errno())}): run the agent as root")
    return ClockSample(
        is_synchronised=state != _TIME_ERROR and not timex.status & _STA_UNSYNC,
        max_error_s=timex.maxerror / 1e6,
        uptime_s=read_uptime(uptime),
    )


def read_uptime(uptime: Path = Path("/proc/uptime")) -> float:
    """Seconds since the boot."""
    return float(uptime.read_text(encoding="ascii").split()[0])


class BootNote:
    """The note of which boot the agent ran in and whether it was told to stop: the next boot reads how this one ended."""

    def __init__(self, path: Path, boot_id: str, *, now: float) -> None:
        """`now` in seconds since the epoch. Nothing raises: without a note there is nothing to compare."""
        self._path = path
        self._boot_id = boot_id
        before = self._load()
        previous = before.get("boot_id")
        was_clean = before.get("clean") is True
        unclean = before.get("unclean")
        self._unclean = [
            at for at in (unclean if isinstance(unclean, list) else ()) if isinstance(at, float) and now - at < _DAY_S
        ]
        self._sample = BootSample(boot_id=boot_id)
        if isinstance(previous, str) and previous != boot_id:
            if not was_clean:
                self._unclean.append(now)
            self._sample = BootSample(
                boot_id=boot_id,
                previous_boot_id=previous,
                previous_was_clean=was_clean,
                unclean_in_a_day=len(self._unclean),
            )
        elif isinstance(ended := before.get("ended"), bool):
            # The agent was started again in the same boot: how the one before ended is still true.
            self._sample = BootSample(
                boot_id=boot_id,
                previous_boot_id=str(before.get("previous")),
                previous_was_clean=ended,
                unclean_in_a_day=len(self._unclean),
            )
        self._write(is_clean=False)

    def read(self) -> BootSample:
        """How the boot before ended. Raises NotHere when there is no note of it."""
        if self._sample.previous_boot_id is None:
            raise NotHere("there is no note of an earlier boot")
        return self._sample

    def end(self) -> None:
        """The agent was told to stop."""
        self._write(is_clean=True)

    def _load(self) -> dict[str, object]:
        try:
            data = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        return data if isinstance(data, dict) else {}

    def _write(self, *, is_clean: bool) -> None:
        data: dict[str, object] = {"boot_id": self._boot_id, "clean": is_clean, "unclean": self._unclean[-20:]}
        if self._sample.previous_boot_id is not None:
            data |= {"previous": self._sample.previous_boot_id, "ended": self._sample.previous_was_clean}
        temporary = self._path.with_name(self._path.name + ".new")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(data), encoding="utf-8")
            temporary.replace(self._path)
        except OSError:
            # A disk that cannot be written has checks of its own; the next boot finds no news.
            return
