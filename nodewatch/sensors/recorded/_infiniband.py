"""A recorded tree like /sys/class/infiniband: found below a directory, and read without trust in any of its files.

A file that is missing, empty or unreadable leaves its value unknown; nothing is made up in its place. Links in a
recording may lead nowhere, counters may say `N/A (no PMA)`, and `lifespan` is a setting that lies among the counters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from nodewatch.errors import SensorError
from nodewatch.model.fabric_samples import FabricDevice, FabricPort, NetLink

_NO_COUNTERS = frozenset({"lifespan"})
_MANY = 512
"""More devices, ports or counters than that are no machine's."""
_EFA_VENDOR = "0x1d0f"
_EFA_COUNTERS = frozenset({"submitted_cmds", "completed_cmds", "keep_alive_rcvd", "rx_drops", "rdma_read_wr_err"})


def read_tree(path: Path) -> tuple[FabricDevice, ...]:
    """The devices below `path`: the directory itself or one above it. Raises SensorError when there is no such tree."""
    try:
        return tuple(_device(entry) for entry in _devices(_find(path)))
    except (OSError, ValueError, RuntimeError) as error:
        raise SensorError(
            f"{path} cannot be read as a tree of devices ({error}): record /sys/class/infiniband"
        ) from error


def is_efa(device: FabricDevice) -> bool | None:
    """Whether it is an EFA device by what was recorded of it; None when that does not tell."""
    if device.driver or device.vendor:
        return device.driver == "efa" or device.vendor == _EFA_VENDOR
    names = {*device.counters, *device.unreadable}
    for port in device.ports:
        names |= {*port.counters, *port.unreadable}
    if names & _EFA_COUNTERS:
        return True
    if re.match(r"mlx|hfi|bnxt|irdma|qedr|rxe|siw|ocrdma|cxgb|i40iw|hns|mana", device.name) or "symbol_error" in names:
        return False
    return True if re.match(r"efa|rdmap\d+s\d+", device.name) else None


def _find(path: Path) -> Path:
    if not path.is_dir():
        raise SensorError(f"{path} is no directory: record the tree /sys/class/infiniband")
    if _is_device(path):
        return path
    for below in ("", "infiniband", "class/infiniband", "sys/class/infiniband"):
        place = path / below if below else path
        if place.is_dir() and (place.name == "infiniband" or any(_is_device(entry) for entry in _entries(place))):
            return place
    for place in _walk(path, depth=6):
        if place.name == "infiniband" and place.parent.name == "class":
            return place
    raise SensorError(f"{path} holds no directory like /sys/class/infiniband: record that tree, or one that holds it")


def _walk(path: Path, *, depth: int) -> Iterator[Path]:
    """Directories below `path`, breadth first, without following links: a recorded link may lead into this machine."""
    level = [path]
    for _ in range(depth):
        found = [entry for place in level for entry in _entries(place) if entry.is_dir() and not entry.is_symlink()]
        yield from found
        level = found[:5000]


def _entries(path: Path) -> list[Path]:
    try:
        return sorted(path.iterdir())
    except OSError:
        return []


def _is_device(path: Path) -> bool:
    return path.is_dir() and (
        (path / "ports").is_dir() or any((path / name).exists() for name in ("node_guid", "node_type"))
    )


def _devices(tree: Path) -> list[Path]:
    if _is_device(tree):
        return [tree]
    return [entry for entry in _entries(tree)[:_MANY] if entry.is_dir()]


def _device(path: Path) -> FabricDevice:
    counters, unreadable = _counters(path / "hw_counters")
    ports = [entry for entry in _entries(path / "ports")[:_MANY] if re.fullmatch(r"[0-9]{1,3}", entry.name)]
    return FabricDevice(
        name=path.name,
        driver=_driver(path / "device"),
        vendor=_text(path / "device" / "vendor").lower(),
        model=_text(path / "board_id") or _text(path / "hca_type") or _text(path / "device" / "device").lower(),
        ports=tuple(_port(entry) for entry in sorted(ports, key=lambda entry: int(entry.name))),
        counters=counters,
        unreadable=unreadable,
        links=tuple(_links(path)),
    )


def _driver(device: Path) -> str:
    link = device / "driver"
    if link.is_symlink():
        return link.readlink().name
    for line in _text(device / "uevent", at_most=4096).splitlines():
        if line.startswith("DRIVER="):
            return line.removeprefix("DRIVER=").strip()
    return ""


def _links(path: Path) -> Iterator[NetLink]:
    """Network interfaces of the same function: below the device, or in a class directory recorded beside it."""
    seen = set()
    for entry in _entries(path / "device" / "net"):
        seen.add(entry.name)
        state = _text(entry / "operstate") or _text(path.parent.parent / "net" / entry.name / "operstate")
        if state:
            yield NetLink(name=entry.name, operstate=state.lower())
    ours = path / "device"
    if not ours.exists():
        return
    for entry in _entries(path.parent.parent / "net") if path.parent.name == "infiniband" else []:
        theirs = entry / "device"
        if entry.name not in seen and theirs.exists() and theirs.resolve() == ours.resolve():
            state = _text(entry / "operstate")
            if state:
                yield NetLink(name=entry.name, operstate=state.lower())


def _port(path: Path) -> FabricPort:
    counters, unreadable = _counters(path / "counters")
    more, broken = _counters(path / "hw_counters")
    rate = re.match(r"([0-9]{1,6}(?:\.[0-9]{1,3})?) *Gb/sec", _text(path / "rate"))
    return FabricPort(
        number=int(path.name),
        state=_word(_text(path / "state")).upper(),
        phys_state=_word(_text(path / "phys_state")),
        link_layer=_text(path / "link_layer"),
        rate_gbps=float(rate[1]) if rate else None,
        counters={**counters, **more},
        unreadable=(*unreadable, *broken),
    )


def _counters(path: Path) -> tuple[dict[str, int], tuple[str, ...]]:
    counters: dict[str, int] = {}
    unreadable: list[str] = []
    for entry in _entries(path)[:_MANY]:
        if entry.name in _NO_COUNTERS or entry.is_dir():
            continue
        text = _text(entry)
        if re.fullmatch(r"[0-9]{1,20}", text):
            counters[entry.name] = int(text)
        elif not text.startswith("N/A"):
            # "N/A (no PMA)" is the kernel's way to say that a port has no such counter.
            unreadable.append(entry.name)
    return counters, tuple(unreadable)


def _word(text: str) -> str:
    """`4: ACTIVE` without its number."""
    return text.partition(":")[2].strip() if re.match(r"[0-9]+:", text) else text


def _text(path: Path, *, at_most: int = 256) -> str:
    """What the file holds, without surrounding space; empty where it cannot be read."""
    try:
        # A pipe or a device in a recording would be waited for, or never end.
        if not path.is_file():
            return ""
        with path.open("rb") as stream:
            return stream.read(at_most).decode("utf-8", errors="replace").strip()
    except OSError:
        return ""
