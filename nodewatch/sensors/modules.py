"""Kernel modules that the hardware asks for, and the limit on locked memory that slurmd's children inherit.

All of it is answered by the kernel from its own memory, within a millisecond; only a search for slurmd among all processes
takes longer, and that is made once for each slurmd.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from nodewatch.errors import SensorError
from nodewatch.model.network_samples import MemlockSample, ModulesSample
from nodewatch.sensors.machine import first_line
from nodewatch.sensors.procfs import NotHere, read_uptime

WATCHED = (
    "nvidia",
    "nvidia_uvm",
    "nvidia_peermem",
    "gdrdrv",
    "efa",
    "ib_uverbs",
    "mlx5_core",
    "mlx5_ib",
    "lustre",
    "lnet",
)
"""As the kernel spells them: with underscores."""
_NVIDIA, _AMAZON, _MELLANOX = "0x10de", "0x1d0f", "0x15b3"
_DISPLAY = ("0x0300", "0x0302")
"""VGA and 3D controllers, the first two bytes of the PCI class (pci.ids)."""
_INFINIBAND = "0x0207"
"""A ConnectX card in Ethernet mode is 0x0200: whether it should do RDMA is nobody's to know."""
_MOST = 16 << 20
"""Bytes of modules.dep; distributions have 0.5 to 1 MB."""
_ROOT = Path("/")


def read_modules(
    *,
    gpus: bool = True,
    efa: bool = True,
    in_container: bool = False,
    root: Path = _ROOT,
    kernel: str = "",
) -> ModulesSample:
    """What is loaded, and what the hardware asks for; `gpus` and `efa` say whether the machine is meant to use those.

    Raises NotHere in a container, SensorError when the kernel does not list its modules.
    """
    if in_container:
        raise NotHere("a container has its host's kernel modules")
    kernel = kernel or os.uname().release
    try:
        listed = (root / "proc/modules").read_text(encoding="ascii", errors="replace")
    except OSError as error:
        raise SensorError(f"the kernel modules cannot be read ({error}): look at /proc/modules") from error
    names = {line.split(" ", 1)[0] for line in listed.splitlines()}
    hardware = set(_hardware(root, gpus=gpus, efa=efa))
    loaded = {name for name in WATCHED if name in names or (root / "sys/module" / name).is_dir()}
    missing = set(WATCHED) - loaded if hardware else set()
    built_in = _listed(root, kernel, "modules.builtin", missing)
    return ModulesSample(
        loaded=frozenset(loaded | built_in),
        installed=_listed(root, kernel, "modules.dep", missing - built_in),
        hardware=frozenset(hardware),
        kernel=kernel,
        uptime_s=read_uptime(root / "proc/uptime"),
    )


def _hardware(root: Path, *, gpus: bool, efa: bool) -> Iterator[str]:
    for device in sorted((root / "sys/bus/pci/devices").glob("*")):
        vendor = first_line(device / "vendor").lower()
        kind = first_line(device / "class").lower()
        if gpus and vendor == _NVIDIA and kind.startswith(_DISPLAY):
            yield "nvidia"
        elif efa and vendor == _AMAZON and first_line(device / "device").lower().startswith("0xefa"):
            yield "efa"
        elif vendor == _MELLANOX and kind.startswith(_INFINIBAND):
            yield "infiniband"
    for line in _text(root / "etc/fstab").splitlines():
        fields = line.split()
        # One that is mounted on demand has its modules loaded then.
        if (
            len(fields) >= 4
            and not fields[0].startswith("#")
            and fields[2] == "lustre"
            and not {"noauto", "x-systemd.automount"} & set(fields[3].split(","))
        ):
            yield "lustre"


def _listed(root: Path, kernel: str, file: str, names: set[str]) -> frozenset[str]:
    """Which of `names` are in a list of the running kernel's modules: modules.dep or modules.builtin."""
    data = b""
    for base in ("lib/modules", "usr/lib/modules"):
        data = data or _bytes(root / base / kernel / file)
    # File names have a dash where the kernel has an underscore, or not.
    return frozenset(
        name for name in names if any(f"/{spelt}.ko".encode() in data for spelt in {name, name.replace("_", "-")})
    )


def _text(path: Path) -> str:
    return _bytes(path).decode("utf-8", "replace")


def _bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(_MOST)
    except OSError:
        return b""


class MemlockReader:
    """Reads the limit of slurmd, whose process is looked for once and again when it is gone."""

    def __init__(self, *, root: Path = _ROOT, daemon: str = "slurmd") -> None:
        self._root = root
        self._daemon = daemon
        self._pid: int | None = None

    def __call__(self) -> MemlockSample:
        """The limit now. Raises NotHere on a machine without RDMA or without slurmd, SensorError when it cannot be read."""
        if not any(True for _ in (self._root / "sys/class/infiniband").glob("*")):
            raise NotHere("the machine has no device that needs locked memory")
        if self._pid is None or not self._is_it(self._pid):
            self._pid = self._find()
        if self._pid is None:
            raise NotHere(f"{self._daemon} does not run")
        try:
            limits = (self._root / "proc" / str(self._pid) / "limits").read_text(encoding="ascii", errors="replace")
            soft, hard = parse_memlock(limits)
        except (OSError, ValueError) as error:
            raise SensorError(
                f"the limits of {self._daemon} cannot be read ({error}): look at /proc/{self._pid}/limits"
            ) from error
        return MemlockSample(daemon=self._daemon, pid=self._pid, soft=soft, hard=hard)

    def _is_it(self, pid: int) -> bool:
        return first_line(self._root / "proc" / str(pid) / "comm") == self._daemon

    def _find(self) -> int | None:
        """The process of that name that started first: the others are its children on their way to another program."""
        found: list[tuple[int, int]] = []
        with contextlib.suppress(OSError):
            pids = [int(entry.name) for entry in (self._root / "proc").iterdir() if entry.name.isdigit()]
            for pid in pids:
                if self._is_it(pid):
                    with contextlib.suppress(ValueError, IndexError):
                        stat = first_line(self._root / "proc" / str(pid) / "stat")
                        found.append((int(stat.rpartition(")")[2].split()[19]), pid))
        return min(found)[1] if found else None


def parse_memlock(limits: str) -> tuple[int | None, int | None]:
    """Soft and hard limit in bytes in the text of /proc/PID/limits; None is unlimited. Raises ValueError for another text."""
    for line in limits.splitlines():
        if line.startswith("Max locked memory"):
            words = line.removeprefix("Max locked memory").split()
            if len(words) >= 2:
                soft, hard = (None if word == "unlimited" else int(word) for word in words[:2])
                return soft, hard
    raise ValueError("it names no limit on locked memory")
