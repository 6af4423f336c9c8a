"""EFA devices of this machine: read by a child process, since the driver asks the device for its counters and may wait for it.

Only the files that a check judges are read, by one grep for all devices. The reading before is kept, so that counters
are judged by what they rose.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nodewatch.model.fabric_samples import EfaSample, FabricDevice, FabricPort
from nodewatch.sensors.child import Child
from nodewatch.sensors.reading import Reading

_VENDOR = "0x1d0f"
_OF_DEVICE = ("cmds_err", "no_completion_cmds", "submitted_cmds", "completed_cmds")
_OF_PORT = (
    "rx_drops",
    "retrans_timeout_events",
    "unresponsive_remote_events",
    "impaired_remote_conn_events",
    "rdma_read_wr_err",
    "rdma_write_wr_err",
)
_FILES = (
    "device/vendor",
    "ports/*/state",
    "ports/*/phys_state",
    *(f"hw_counters/{name}" for name in _OF_DEVICE),
    *(f"ports/*/hw_counters/{name}" for name in _OF_PORT),
)
_LINE = re.compile(r"([^/:]{1,64})/([a-z0-9_/]{1,80}):(.{0,80})", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,20}", re.ASCII)
_MOST = 65536
"""What a child's output is cut at: more than that was not read whole."""


def argv_for(directory: Path) -> tuple[str, ...]:
    """The command that prints `device/file:value` for each file; a file that vanishes meanwhile is left out."""
    # The shell expands the patterns, since the entries are links, which grep -r does not follow.
    files = " ".join(f"*/{name}" for name in _FILES)
    return ("sh", "-c", f'cd -- "$1" || exit 3; grep -s "" /dev/null {files}; exit 0', "sh", str(directory))


def parse(text: str) -> tuple[FabricDevice, ...]:
    """The EFA devices in the command's output, by name. Lines that are none of its own are skipped."""
    devices: dict[str, FabricDevice] = {}
    for line in text.splitlines():
        match = _LINE.fullmatch(line.strip())
        if match:
            name, path, value = match[1], match[2], match[3].strip()
            devices[name] = _with(devices.get(name, FabricDevice(name=name)), path, value)
    return tuple(devices[name] for name in sorted(devices) if devices[name].vendor == _VENDOR)


def _with(device: FabricDevice, path: str, value: str) -> FabricDevice:
    parts = path.split("/")
    if path == "device/vendor":
        return replace(device, vendor=value.lower())
    if parts[0] == "hw_counters" and len(parts) == 2:
        if _NUMBER.fullmatch(value):
            return replace(device, counters={**device.counters, parts[1]: int(value)})
        return replace(device, unreadable=(*device.unreadable, parts[1]))
    if parts[0] != "ports" or len(parts) < 3 or not parts[1].isdigit():
        return device
    number = int(parts[1])
    port = next((item for item in device.ports if item.number == number), FabricPort(number=number))
    word = value.partition(":")[2].strip() or value
    if parts[2] == "state":
        port = replace(port, state=word.upper())
    elif parts[2] == "phys_state":
        port = replace(port, phys_state=word)
    elif parts[2] == "hw_counters" and len(parts) == 4 and _NUMBER.fullmatch(value):
        port = replace(port, counters={**port.counters, parts[3]: int(value)})
    elif parts[2] == "hw_counters" and len(parts) == 4:
        port = replace(port, unreadable=(*port.unreadable, parts[3]))
    others = [item for item in device.ports if item.number != number]
    return replace(device, ports=tuple(sorted((*others, port), key=lambda item: item.number)))


class EfaSensor:
    """Polled source of `EfaSample`; not applicable on a machine that has no such device and should have none."""

    name = "efa"
    reads = EfaSample

    def __init__(
        self,
        *,
        expected: int | None,
        deadline_s: float = 10.0,
        directory: Path = Path("/sys/class/infiniband"),
        argv: Sequence[str] | None = None,
    ) -> None:
        """`expected` is how many devices the machine should have; None when it is not known."""
        self._expected = expected
        self._deadline_s = deadline_s
        self._directory = directory
        self._argv = tuple(argv) if argv is not None else argv_for(directory)
        self._child: Child | None = None
        self._late = False
        self._pending: Reading | None = None
        self._before: tuple[float, tuple[FabricDevice, ...]] | None = None

    def start(self, now: float) -> None:
        """Begin a reading. One that hangs is waited for: a second child would hang on the same device."""
        if self._pending is not None or (self._child is not None and not self._late):
            return
        if self._child is not None:
            self._late = False
            if self._child.poll() is None:
                self._pending = Reading(error=self._says_late())
                self._late = True
                return
            self._child = None
        if not self._directory.is_dir():
            self._pending = self._reading((), now)
            return
        try:
            self._child = Child(self._argv, now=now)
        except OSError as error:
            self._pending = Reading(error=f"the EFA devices cannot be read: {error}: look at {self._directory}")

    def filenos(self) -> tuple[int, ...]:
        """The child's output while it is waited for."""
        return () if self._child is None or self._late or self._pending is not None else (self._child.fileno(),)

    def due_at(self) -> float | None:
        """When the child is late; at once where there is no child to wait for."""
        if self._pending is not None:
            return 0.0
        return None if self._child is None or self._late else self._child.started_at + self._deadline_s

    def result(self, now: float) -> Reading | None:
        """The sample, or why there is none."""
        pending, self._pending = self._pending, None
        if pending is not None:
            return pending
        if self._child is None or self._late:
            return None
        ended = self._child.poll()
        if ended is None:
            if now - self._child.started_at < self._deadline_s:
                return None
            self._late = True
            return Reading(error=self._says_late())
        self._child = None
        if ended.returncode != 0 or len(ended.stdout) >= _MOST:
            return Reading(
                error=f"the EFA devices cannot be read (status {ended.returncode}): look at {self._directory}"
            )
        return self._reading(parse(ended.stdout), now)

    def close(self) -> None:
        """Send SIGKILL to the child; one that cannot be killed yet is left to the kernel."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    def _reading(self, devices: tuple[FabricDevice, ...], now: float) -> Reading:
        if not devices and not self._expected and self._before is None:
            return Reading(not_applicable="the machine has no EFA device")
        before, self._before = self._before, (now, devices)
        sample = EfaSample(devices=devices, expected=self._expected)
        if before is not None and now > before[0]:
            sample = replace(sample, previous=before[1], interval_s=now - before[0])
        return Reading(sample=sample)

    def _says_late(self) -> str:
        return (
            f"the EFA devices did not give their counters within {self._deadline_s:g} s: look for efa in the kernel log"
        )
