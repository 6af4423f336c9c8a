"""Counting a machine's parts from trees like /sys, and refusing to learn from what is broken or cannot be told."""

from __future__ import annotations

from pathlib import Path

import pytest

from nodewatch.errors import SensorError
from nodewatch.model.gpu_samples import Gpu
from nodewatch.sensors.inventory import Inventory, alike, read_inventory


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def plain(kind: str = "trn9.48xlarge") -> dict[str, str]:
    return {
        "sys/devices/virtual/dmi/id/product_name": f"{kind}\n",
        "sys/devices/system/cpu/present": "0-191\n",
        "sys/devices/system/memory/block_size_bytes": "40000000\n",
        **{f"sys/devices/system/memory/memory{n}/state": "online\n" for n in range(12)},
        **{f"sys/class/infiniband/rdmap{n}s0/device/vendor": "0x1d0f\n" for n in range(16)},
        "sys/class/infiniband/mlx5_0/device/vendor": "0x15b3\n",
        "sys/class/infiniband/rxe0/node_guid": "0\n",
        **{f"sys/devices/virtual/neuron_device/neuron{n}/core_count": "8\n" for n in range(16)},
        "sys/devices/virtual/neuron_device/power/control": "auto\n",
        "sys/bus/pci/devices/0000:00:00.0/vendor": "0x1d0f\n",
    }


def test_a_machine_without_gpus(tmp_path: Path) -> None:
    assert read_inventory(root=tree(tmp_path, plain())) == Inventory(
        instance_type="trn9.48xlarge",
        gpus=0,
        gpu="",
        nvlinks_per_gpu=0,
        gpu_memory_mib=0,
        efa_devices=16,
        neuron_devices=16,
        vcpus=192,
        memory_gib=12,
    )


def test_memory_where_the_kernel_has_no_blocks(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "sys/devices/virtual/dmi/id/product_name": "m9.large",
            "sys/devices/system/cpu/present": "0-1",
            "proc/meminfo": "MemTotal:       16231000 kB\nMemFree: 1 kB\n",
        },
    )
    seen = read_inventory(root=root)
    assert (seen.memory_gib, seen.vcpus, seen.efa_devices, seen.neuron_devices) == (15, 2, 0, 0)


def test_a_firmware_that_names_no_instance_type(tmp_path: Path) -> None:
    root = tree(tmp_path, plain("Standard PC (Q35 + ICH9, 2009)"))
    with pytest.raises(SensorError, match="name it with --instance-type"):
        read_inventory(root=root)
    assert read_inventory(instance_type="x9.large", root=root).instance_type == "x9.large"


def test_gpus_whose_driver_cannot_be_asked_are_not_no_gpus(tmp_path: Path) -> None:
    """Learnt as none, the type's GPUs would never be missed again."""
    files = plain() | {
        "sys/bus/pci/devices/0000:53:00.0/vendor": "0x10de\n",
        "sys/bus/pci/devices/0000:53:00.0/class": "0x030200\n",
    }
    with pytest.raises(SensorError, match="NVML"):
        read_inventory(root=tree(tmp_path, files))


def gpu(**values: object) -> Gpu:
    facts = {"name": "NVIDIA H900", "memory_total_mib": 183359, "nvlinks_active": 18, **values}
    return Gpu(index=0, uuid="GPU-1", pci_bus_id="0000:53:00", **facts)  # type: ignore[arg-type]


def test_gpus_that_are_alike_and_sound() -> None:
    alike([gpu(), gpu(), gpu()])
    alike([])


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (gpu(is_lost=True), "is lost"),
        (gpu(nvlinks_inactive=(3, 4)), "NVLink 3, 4 of GPU-1 is down"),
        (gpu(mig_enabled=True), "MIG"),
        (gpu(name="NVIDIA H100"), "name: NVIDIA H100, NVIDIA H900"),
        (gpu(memory_total_mib=81559), "memory_total_mib: 183359, 81559"),
        (gpu(nvlinks_active=17), "nvlinks_active: 17, 18"),
    ],
)
def test_what_is_broken_or_mixed_is_no_teacher(other: Gpu, says: str) -> None:
    with pytest.raises(SensorError) as caught:
        alike([gpu(), other])
    assert says in str(caught.value)
