"""The state file that plays an instance's hardware: what the fake NVML answers and what the kernel log says.

One file an instance, `hardware`, lines appended by `lab inject`; the last word on a subject holds. The C library
reads the `gpu` and `driver` lines, the cloud carries the `kmsg` lines to the machine's kernel-log feed.

    driver 570.86.15
    gpu 2 uuid GPU-...          also: serial, bus, name, temperature, lost, ecc_corrected, ecc_uncorrected,
    gpu 2 lost 1                remap_corrected, remap_uncorrected, remap_pending, remap_failed, throttle,
                                pcie_generation, pcie_width, memory_used_mib, utilization, power_mw
    kmsg 4 NVRM: Xid ...        level and text of one kernel-log record
    kmsg-raw 362c2d...          one record as hexadecimal bytes, garbled ones included
"""

import hashlib
import os
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from nodewatch.lab.errors import LabError
from nodewatch.lab.layout import GPUS_PER_NODE

FILE_NAME = "hardware"
FEED_NAME = "kmsg"
DRIVER = "570.86.15"
GPU_NAME = "NVIDIA H100 80GB HBM3"
# The PCI buses of the eight GPUs of a p5.48xlarge.
BUSES = (0x53, 0x64, 0x75, 0x86, 0x97, 0xA8, 0xB9, 0xCA)


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The state file, read."""

    driver: str
    gpus: dict[int, dict[str, str]]
    log: list[str]


def gpu_uuid(ident: str, gpu: int) -> str:
    """A GPU's UUID: made from the instance's id, so that a new instance has other GPUs."""
    return f"GPU-{uuid.uuid5(uuid.NAMESPACE_OID, f'{ident}/{gpu}')}"


def bus_id(gpu: int) -> str:
    """The PCI address of a GPU as the kernel writes it."""
    if not 0 <= gpu < GPUS_PER_NODE:
        raise LabError(f"there is no GPU {gpu}: the lab's nodes have GPUs 0 to {GPUS_PER_NODE - 1}")
    return f"0000:{BUSES[gpu]:02x}:00"


def healthy(ident: str) -> str:
    """The state file of a new instance."""
    lines = ["# Written by nodewatch lab; the format stands in nodewatch/lab/hardware.py.", f"driver {DRIVER}"]
    for gpu in range(GPUS_PER_NODE):
        serial = int(hashlib.sha256(f"{ident}/{gpu}".encode()).hexdigest()[:10], 16) % 10**13
        lines += [
            f"gpu {gpu} uuid {gpu_uuid(ident, gpu)}",
            f"gpu {gpu} serial {serial:013d}",
            f"gpu {gpu} bus 0000{bus_id(gpu).upper()}.0",
            f"gpu {gpu} name {GPU_NAME}",
            f"gpu {gpu} temperature {31 + gpu % 4}",
        ]
    return "\n".join(lines) + "\n"


def append(file: Path, lines: list[str]) -> None:
    """Add lines in one write: a reader sees all of them or none."""
    handle = os.open(file, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(handle, "".join(line + "\n" for line in lines).encode())
    finally:
        os.close(handle)


def parse(text: str) -> State:
    """Read a state file; a line that is not understood is an error that names it."""
    driver, gpus, log = "", {gpu: {} for gpu in range(GPUS_PER_NODE)}, []  # type: str, dict[int, dict[str, str]], list[str]
    for number, line in enumerate(text.splitlines(), start=1):
        word, _, rest = line.partition(" ")
        if not line.strip() or line.startswith("#"):
            continue
        if word == "driver":
            driver = rest
        elif word == "gpu" and len(rest.split(" ", 2)) == 3 and rest.split(" ", 1)[0].isdigit():
            index, key, value = rest.split(" ", 2)
            gpus.setdefault(int(index), {})[key] = value
        elif word in ("kmsg", "kmsg-raw"):
            log.append(line)
        else:
            raise LabError(f"line {number} of the hardware state is not understood: {line!r}")
    return State(driver=driver, gpus=gpus, log=log)


def record(line: str, sequence: int, clock_offset_s: int = 0) -> bytes:
    """A `kmsg` or `kmsg-raw` line as the record that a reader of /dev/kmsg gets.

    The machine's clock since boot is `clock_offset_s` behind the host's.
    """
    word, _, rest = line.partition(" ")
    if word == "kmsg-raw":
        return bytes.fromhex(rest)
    level, _, text = rest.partition(" ")
    since_boot_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000 - clock_offset_s * 1_000_000
    return f"{level},{sequence},{since_boot_us},-;{text}\n".encode()
