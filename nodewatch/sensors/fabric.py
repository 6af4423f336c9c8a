"""Devices under /sys/class/infiniband, read by a child process: a driver asks its device for counters and may wait for it.

Only the files that a check judges are read, by one grep for all devices. Which devices there are is looked up without a
child, since the kernel answers that from its own memory; a machine without any costs no process.
"""

from __future__ import annotations

import contextlib
import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

from nodewatch.model.fabric_samples import FabricDevice, FabricPort, NetLink
from nodewatch.sensors.asked import AskedSensor
from nodewatch.sensors.child import Ended
from nodewatch.sensors.reading import Reading

TREE = Path("/sys/class/infiniband")
_LINE = re.compile(r"([^/:]{1,64})/([A-Za-z0-9_./@-]{1,120}):(.{0,80})", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,20}", re.ASCII)
_RATE = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?) *Gb/sec", re.ASCII)
RATE_S = 48.0
"""Counters are judged by what they rose over at least this long: five events in one second are no rate. It is a minute,
the period of the checks of counters, less the lateness that the agent allows them (0.8), so that no rise falls between."""

Devices = tuple[FabricDevice, ...]


def argv_for(directory: Path, files: Sequence[str]) -> tuple[str, ...]:
    """The command that prints `device/file:value` for each file; a file that vanishes meanwhile is left out."""
    # The shell expands the patterns, since the entries are links, which grep -r does not follow.
    patterns = " ".join(f"*/{name}" for name in files)
    return ("sh", "-c", f'cd -- "$1" || exit 3; grep -s "" /dev/null {patterns}; exit 0', "sh", str(directory))


def parse(text: str) -> Devices:
    """The devices in the command's output, by name. Lines that are none of its own are skipped."""
    files: dict[str, dict[str, str]] = {}
    for line in text.splitlines():
        match = _LINE.fullmatch(line.strip())
        if match:
            files.setdefault(match[1], {}).setdefault(match[2], match[3].strip())
    return tuple(_device(name, files[name]) for name in sorted(files))


def _device(name: str, files: Mapping[str, str]) -> FabricDevice:
    counters: dict[str, int] = {}
    unreadable: list[str] = []
    ports: dict[int, dict[str, str]] = {}
    links = []
    for path, value in files.items():
        parts = path.split("/")
        if len(parts) == 2 and parts[0] == "hw_counters":
            _count(parts[1], value, counters, unreadable)
        elif len(parts) >= 3 and parts[0] == "ports" and re.fullmatch(r"[0-9]{1,3}", parts[1], re.ASCII):
            ports.setdefault(int(parts[1]), {})["/".join(parts[2:])] = value
        elif len(parts) == 4 and (parts[0], parts[1], parts[3]) == ("device", "net", "operstate") and value:
            links.append(NetLink(name=parts[2], operstate=value.lower()))
    return FabricDevice(
        name=name,
        vendor=files.get("device/vendor", "").lower(),
        model=files.get("board_id") or files.get("hca_type") or files.get("device/device", "").lower(),
        ports=tuple(_port(number, ports[number]) for number in sorted(ports)),
        counters=counters,
        unreadable=tuple(unreadable),
        links=tuple(links),
    )


def _port(number: int, files: Mapping[str, str]) -> FabricPort:
    counters: dict[str, int] = {}
    unreadable: list[str] = []
    for path, value in files.items():
        directory, _, counter = path.partition("/")
        if directory in ("counters", "hw_counters") and counter:
            _count(counter, value, counters, unreadable)
    rate = _RATE.match(files.get("rate", ""))
    return FabricPort(
        number=number,
        state=_word(files.get("state", "")).upper(),
        phys_state=_word(files.get("phys_state", "")),
        link_layer=files.get("link_layer", ""),
        rate_gbps=float(rate[1]) if rate else None,
        counters=counters,
        unreadable=tuple(unreadable),
    )


def _count(name: str, value: str, counters: dict[str, int], unreadable: list[str]) -> None:
    if _NUMBER.fullmatch(value):
        counters[name] = int(value)
    elif not value.startswith("N/A"):
        # "N/A (no PMA)" is the kernel's way to say that a port has no such counter.
        unreadable.append(name)


def _word(text: str) -> str:
    """`4: ACTIVE` without its number."""
    return text.partition(":")[2].strip() or text


def vendors(directory: Path) -> tuple[str, ...]:
    """The PCI vendor of each device that has one: `0x1d0f`. Software devices (rxe, siw) have none and are left out."""
    found = []
    with contextlib.suppress(OSError):
        for entry in sorted(directory.iterdir()):
            with contextlib.suppress(OSError, ValueError):
                found.append((entry / "device" / "vendor").read_text(encoding="ascii").strip().lower())
    return tuple(vendor for vendor in found if vendor)


class _Earlier:
    """Readings before, and the devices that were there once and are not now."""

    def __init__(self) -> None:
        self._readings: list[tuple[float, Devices]] = []
        self._last_seen: dict[str, FabricDevice] = {}

    @property
    def is_empty(self) -> bool:
        return not self._last_seen

    @property
    def most(self) -> int:
        """How many different devices were ever seen."""
        return len(self._last_seen)

    def take(self, now: float, devices: Devices) -> tuple[Devices | None, float | None]:
        """An earlier reading and its age, for the reading of `now`: both None without one.

        A device that is gone stays in the earlier reading for as long as it is gone: a finding of it must not clear
        because time passes.
        """
        names = {device.name for device in devices}
        gone = tuple(device for name, device in self._last_seen.items() if name not in names)
        self._last_seen |= {device.name: device for device in devices}
        while len(self._readings) > 1 and now - self._readings[1][0] >= RATE_S:
            del self._readings[0]
        at, before = self._readings[0] if self._readings else (now, ())
        self._readings.append((now, devices))
        if now - at < RATE_S:
            return gone or None, None
        known = {device.name for device in before}
        return (*before, *(device for device in gone if device.name not in known)), now - at


class FabricSensor(AskedSensor):
    """What the sensors of EFA and of InfiniBand share: one command for all devices, and the readings before."""

    files: tuple[str, ...] = ()
    """What is read of each device, as patterns below its directory."""

    def __init__(self, *, deadline_s: float, directory: Path, argv: Sequence[str] | None) -> None:
        super().__init__(deadline_s=deadline_s)
        self._directory = directory
        self._argv = tuple(argv) if argv is not None else argv_for(directory, self.files)
        self._earlier = _Earlier()

    @abstractmethod
    def is_own(self, vendor: str) -> bool:
        """Whether a device of this PCI vendor is one of ours."""

    @abstractmethod
    def reading_of(self, devices: Devices, previous: Devices | None, interval_s: float | None) -> Reading:
        """The sample, or that the question does not apply."""

    def question(self, now: float) -> Reading | Sequence[str]:
        """The command, where there is a device."""
        if any(self.is_own(vendor) for vendor in vendors(self._directory)):
            return self._argv
        return self._reading((), now)

    def answer(self, ended: Ended, now: float) -> Reading:
        """The devices, with what was before."""
        return self._reading(tuple(device for device in parse(ended.stdout) if self.is_own(device.vendor)), now)

    def _reading(self, devices: Devices, now: float) -> Reading:
        previous, interval_s = self._earlier.take(now, devices)
        return self.reading_of(devices, previous, interval_s)
