"""Kernel modules and slurmd's limit, in trees like /proc, /sys and /lib/modules."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewatch.errors import SensorError
from nodewatch.sensors.modules import MemlockReader, parse_memlock, read_modules
from nodewatch.sensors.procfs import NotHere

KERNEL = "6.8.0-1021-aws"


def put(root: Path, files: dict[str, str]) -> Path:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


def pci(number: int, vendor: str, device: str, kind: str) -> dict[str, str]:
    place = f"sys/bus/pci/devices/0000:{number:02x}:00.0"
    return {f"{place}/vendor": vendor + "\n", f"{place}/device": device + "\n", f"{place}/class": kind + "\n"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return put(
        tmp_path,
        {
            "proc/modules": "efa 94208 0 - Live 0x0000000000000000\nnvidia 9 3 nvidia_uvm, Live 0x0 (POE)\n",
            "proc/uptime": "5000.12 99.0\n",
            "sys/module/ib_uverbs/parameters/x": "",
            f"lib/modules/{KERNEL}/modules.dep": (
                "kernel/drivers/net/veth.ko:\nupdates/dkms/gdrdrv.ko.zst: updates/dkms/nvidia.ko.zst\n"
                "updates/dkms/nvidia-uvm.ko.zst: updates/dkms/nvidia.ko.zst\n"
            ),
            f"lib/modules/{KERNEL}/modules.builtin": "kernel/drivers/net/mlx5/mlx5_core.ko\n",
            "etc/fstab": "# fs@tcp:/x /old lustre defaults 0 0\nLABEL=/ / xfs defaults 0 0\n",
            **pci(1, "0x10de", "0x2330", "0x030200"),
            **pci(2, "0x10de", "0x22a3", "0x068000"),
            **pci(3, "0x1d0f", "0xefa2", "0x020000"),
            **pci(4, "0x1d0f", "0xec20", "0x020000"),
            **pci(5, "0x15b3", "0x101e", "0x020000"),
        },
    )


def test_what_is_loaded_installed_and_asked_for(root: Path) -> None:
    sample = read_modules(root=root, kernel=KERNEL)
    assert sample.loaded == {"efa", "nvidia", "ib_uverbs", "mlx5_core"}
    assert sample.installed == {"gdrdrv", "nvidia_uvm"}
    assert sample.hardware == {"nvidia", "efa"}
    assert (sample.kernel, sample.uptime_s) == (KERNEL, 5000.12)


def test_what_the_machine_is_not_meant_to_use_is_not_asked_for(root: Path) -> None:
    assert read_modules(gpus=False, efa=False, root=root, kernel=KERNEL).hardware == frozenset()


@pytest.mark.parametrize(
    ("line", "asked"),
    [
        ("fs-0a@tcp:/abc /fsx lustre defaults,noatime,flock,_netdev 0 0", True),
        ("fs-0a@tcp:/abc /fsx lustre noatime,noauto,x-systemd.automount,_netdev 0 0", False),
        ("host:/x /home nfs4 defaults 0 0", False),
    ],
)
def test_lustre_is_asked_for_by_fstab(root: Path, line: str, asked: bool) -> None:
    put(root, {"etc/fstab": line + "\n"})
    assert ("lustre" in read_modules(root=root, kernel=KERNEL).hardware) is asked


def test_infiniband_by_its_class(root: Path) -> None:
    put(root, pci(5, "0x15b3", "0x1021", "0x020700"))
    assert "infiniband" in read_modules(root=root, kernel=KERNEL).hardware


def test_where_modules_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(NotHere):
        read_modules(in_container=True, root=tmp_path)
    with pytest.raises(SensorError, match="/proc/modules"):
        read_modules(root=tmp_path)


def limits(soft: str, hard: str) -> str:
    return (
        "Limit                     Soft Limit           Hard Limit           Units     \n"
        f"Max locked memory         {soft:20} {hard:20} bytes     \n"
        "Max file locks            unlimited            unlimited            locks     \n"
    )


def daemon(pid: int, started: int, soft: str = "unlimited", name: str = "slurmd") -> dict[str, str]:
    stat = f"{pid} ({name}) S 1 " + " ".join(str(started) if field == 22 else "0" for field in range(5, 53))
    return {
        f"proc/{pid}/comm": name + "\n",
        f"proc/{pid}/stat": stat + "\n",
        f"proc/{pid}/limits": limits(soft, "unlimited"),
    }


def test_the_limit_of_slurmd_and_not_of_its_children(tmp_path: Path) -> None:
    (tmp_path / "sys/class/infiniband/rdmap0s27").mkdir(parents=True)
    put(tmp_path, daemon(300, started=900, soft="1") | daemon(40, started=50, soft="2", name="slurmstepd"))
    put(tmp_path, daemon(4100, started=800, soft="8388608"))
    read = MemlockReader(root=tmp_path)
    sample = read()
    assert (sample.daemon, sample.pid, sample.soft, sample.hard) == ("slurmd", 4100, 8388608, None)
    # slurmd was started again under another number.
    put(tmp_path, {"proc/4100/comm": "bash\n"} | {"proc/300/comm": "bash\n"} | daemon(5000, started=9000))
    assert (read().pid, read().soft) == (5000, None)


def test_where_the_limit_does_not_matter(tmp_path: Path) -> None:
    put(tmp_path, daemon(300, started=900))
    with pytest.raises(NotHere, match="locked memory"):
        MemlockReader(root=tmp_path)()
    (tmp_path / "sys/class/infiniband/rdmap0s27").mkdir(parents=True)
    with pytest.raises(NotHere, match="does not run"):
        MemlockReader(root=tmp_path, daemon="nobody")()


def test_a_limit_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "sys/class/infiniband/rdmap0s27").mkdir(parents=True)
    put(tmp_path, daemon(300, started=900) | {"proc/300/limits": "nothing\n"})
    with pytest.raises(SensorError, match="/proc/300/limits"):
        MemlockReader(root=tmp_path)()


def test_our_own_limit_as_the_kernel_writes_it() -> None:
    own = Path(f"/proc/{os.getpid()}/limits").read_text(encoding="ascii")
    expected = tuple(
        None if value == resource.RLIM_INFINITY else value for value in resource.getrlimit(resource.RLIMIT_MEMLOCK)
    )
    assert parse_memlock(own) == expected


@given(st.text())
def test_no_text_breaks_it(text: str) -> None:
    for written in (text, f"Max locked memory {text}"):
        try:
            soft, _ = parse_memlock(written)
        except ValueError:
            continue
        assert soft is None or isinstance(soft, int)
