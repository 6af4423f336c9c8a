"""What this machine has, counted on the machine itself: the row of an instance type that no table knows."""

from __future__ import annotations

import os
import re
import select
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nodewatch.errors import SensorError
from nodewatch.model.gpu_samples import Gpu, GpuSample
from nodewatch.sensors import fabric, machine
from nodewatch.sensors.efa import AMAZON
from nodewatch.sensors.nvml import NvmlSensor, has_nvidia_device
from nodewatch.sensors.procfs import count_of
from nodewatch.sensors.reading import PolledSensor, Reading

_GIB = 1 << 30
_NEURON = re.compile(r"neuron[0-9]{1,4}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """The counts. `gpu` is the driver's name of the model, empty without GPUs; memory of one GPU in MiB."""

    instance_type: str
    gpus: int
    gpu: str
    nvlinks_per_gpu: int
    gpu_memory_mib: int
    efa_devices: int
    neuron_devices: int
    vcpus: int
    memory_gib: int


def read_inventory(*, instance_type: str = "", root: Path = Path("/"), deadline_s: float = 30.0) -> Inventory:
    """Count what this machine has; `instance_type` where the firmware does not say it.

    Raises SensorError when something cannot be told, or is broken: what is broken here must not become what is expected
    elsewhere. `root` is where /proc and /sys are looked for.
    """
    name = instance_type or machine.first_line(root / "sys/devices/virtual/dmi/id/product_name")
    if not re.fullmatch(r"[a-z][a-z0-9-]*\.[a-z0-9-]+", name):
        raise SensorError(
            f"the firmware calls this machine {name!r}, which is no instance type: name it with --instance-type"
        )
    gpus = _gpus(root, deadline_s)
    tree = root / "sys/devices/virtual/neuron_device"
    return Inventory(
        instance_type=name,
        gpus=len(gpus),
        gpu=gpus[0].name or "" if gpus else "",
        nvlinks_per_gpu=gpus[0].nvlinks_active or 0 if gpus else 0,
        gpu_memory_mib=gpus[0].memory_total_mib or 0 if gpus else 0,
        efa_devices=fabric.vendors(root / "sys/class/infiniband").count(AMAZON),
        neuron_devices=sum(bool(_NEURON.fullmatch(entry.name)) for entry in tree.iterdir()) if tree.is_dir() else 0,
        vcpus=_cpus(root),
        memory_gib=_memory_gib(root),
    )


def ask(sensor: PolledSensor, *, deadline_s: float) -> Reading:
    """One reading of `sensor`, waited for. Raises SensorError when it is late; the sensor is closed."""
    try:
        until = time.monotonic() + deadline_s
        sensor.start(time.monotonic())
        while (now := time.monotonic()) < until:
            reading = sensor.result(now)
            if reading is not None:
                return reading
            select.select(sensor.filenos(), (), (), 0.05)
        raise SensorError(f"{sensor.name} did not answer within {deadline_s:g} s: look at the kernel log")
    finally:
        sensor.close()


def alike(gpus: Sequence[Gpu]) -> None:
    """Nothing, when all `gpus` are sound and of one kind. Raises SensorError with what differs or is broken."""
    for gpu in gpus:
        if gpu.is_lost:
            raise SensorError(f"{gpu.subject} is lost: repair the machine before learning from it")
        if gpu.nvlinks_inactive:
            links = ", ".join(map(str, gpu.nvlinks_inactive))
            raise SensorError(f"NVLink {links} of {gpu.subject} is down: repair the machine before learning from it")
        if gpu.mig_enabled:
            raise SensorError(f"{gpu.subject} is divided by MIG: learn from a machine whose GPUs are whole")
    for what in ("name", "memory_total_mib", "nvlinks_active"):
        values = sorted({str(getattr(gpu, what)) for gpu in gpus})
        if len(values) > 1:
            raise SensorError(
                f"the GPUs differ ({what}: {', '.join(values)}): learn from a machine whose GPUs are alike"
            )


def _gpus(root: Path, deadline_s: float) -> tuple[Gpu, ...]:
    devices = root / "sys/bus/pci/devices"
    # A machine whose driver is missing has GPUs all the same: none are only where the bus shows none and NVML as well.
    is_there = has_nvidia_device(devices)
    mode = "on" if is_there else "auto"
    sensor = NvmlSensor(deadline_s=deadline_s, expected=None, mode=mode, pci_devices=devices)
    reading = ask(sensor, deadline_s=deadline_s + 5.0)
    if reading.not_applicable is not None:
        return ()
    if reading.error is not None:
        raise SensorError(reading.error)
    sample = reading.sample
    assert isinstance(sample, GpuSample)
    for index, why in sample.unreadable:
        raise SensorError(f"GPU {index} cannot be read ({why}): repair the machine before learning from it")
    alike(sample.gpus)
    return sample.gpus


def _cpus(root: Path) -> int:
    present = machine.first_line(root / "sys/devices/system/cpu/present")
    try:
        return count_of(present)
    except ValueError:
        return os.cpu_count() or 0


def _memory_gib(root: Path) -> int:
    """The memory that the firmware gave, by its blocks; where the kernel has no blocks, what it counts as its own."""
    memory = root / "sys/devices/system/memory"
    try:
        size = int((memory / "block_size_bytes").read_text(encoding="ascii"), 16)
        return round(size * sum(1 for _ in memory.glob("memory[0-9]*")) / _GIB)
    except (OSError, ValueError):
        pass
    try:
        lines = (root / "proc/meminfo").read_text(encoding="ascii").splitlines()
        kib = next(int(line.split()[1]) for line in lines if line.startswith("MemTotal:"))
    except (OSError, ValueError, IndexError, StopIteration) as error:
        raise SensorError(f"the memory of this machine cannot be read ({error}): look at /proc/meminfo") from error
    return round(kib / (1 << 20))
