"""NVMe controllers: the kernel's tree, logs of 512 bytes, and a probe that hangs, fails or talks nonsense."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewatch.model.host_samples import NvmeDevice, NvmeSample
from nodewatch.sensors import nvme_probe
from nodewatch.sensors.commands import CommandSensor, Ran
from nodewatch.sensors.nvme import NvmeMachine, nvme_sensor, with_log

from .tools import read


def log(*, warning: int = 0, kelvin: int = 310, media_errors: int = 0) -> bytes:
    made = bytearray(512)
    made[0] = warning
    made[1:3] = kelvin.to_bytes(2, "little")
    made[3:6] = bytes((100, 10, 7))
    made[160:176] = media_errors.to_bytes(16, "little")
    return bytes(made)


def put(root: Path, name: str = "nvme0", state: str = "live") -> None:
    place = root / "sys/class/nvme" / name
    place.mkdir(parents=True)
    (place / "model").write_text("Amazon EC2 NVMe Instance Storage        \n")
    (place / "state").write_text(state + "\n")


def sensor_of(root: Path, script: str, *, deadline_s: float = 20.0) -> CommandSensor:
    return nvme_sensor(
        NvmeMachine(in_container=False, root=root, argv=("sh", "-c", script, "sh")), deadline_s=deadline_s
    )


def test_a_health_log() -> None:
    device = with_log(NvmeDevice(name="nvme0"), log(warning=4, media_errors=1 << 70))
    assert (device.critical_warning, device.temperature_c, device.media_errors) == (4, 37, 1 << 70)
    assert (device.spare_percent, device.spare_threshold_percent, device.used_percent) == (100, 10, 7)
    assert with_log(NvmeDevice(name="nvme0"), log(kelvin=0)).temperature_c is None
    with pytest.raises(ValueError, match="512 bytes"):
        with_log(NvmeDevice(name="nvme0"), b"short")


def test_the_command_is_the_kernels_structure() -> None:
    command = bytes(nvme_probe.command_for(0x1122334455667788))
    # sizeof(struct nvme_admin_cmd) is in the ioctl's number.
    assert len(command) == (nvme_probe._ADMIN_COMMAND >> 16) & 0x3FFF == 72
    assert command[0] == 0x02
    assert struct.unpack_from("=I", command, 4) == (0xFFFFFFFF,)
    assert struct.unpack_from("=Q", command, 24) == (0x1122334455667788,)
    assert struct.unpack_from("=II", command, 36) == (512, 0x007F0002)
    assert struct.unpack_from("=I", command, 64) == (5000,)


def test_the_probe_as_a_program(tmp_path: Path) -> None:
    (tmp_path / "nvme0").write_text("no device")
    done = subprocess.run(
        [sys.executable, "-I", "-S", nvme_probe.__file__, str(tmp_path / "nvme0"), str(tmp_path / "nvme1")],
        capture_output=True,
        text=True,
        check=True,
    )
    first, second = (json.loads(line) for line in done.stdout.splitlines())
    assert (first["name"], "log" in first) == ("nvme0", False)
    assert first["why"]
    assert second == {"name": "nvme1", "why": "No such file or directory"}


def test_devices(tmp_path: Path) -> None:
    put(tmp_path)
    put(tmp_path, "nvme1")
    put(tmp_path, "nvme-subsys0")
    answers = [{"name": "nvme0", "log": log(warning=1).hex()}, {"name": "nvme1", "why": "NVMe status 0x4002"}]
    script = "; ".join(f"echo '{json.dumps(answer)}'" for answer in answers)
    sample = read(sensor_of(tmp_path, script)).sample
    assert isinstance(sample, NvmeSample)
    first, second = sample.devices
    assert (first.name, first.model, first.critical_warning) == ("nvme0", "Amazon EC2 NVMe Instance Storage", 1)
    assert (second.critical_warning, second.unreadable) == (None, "NVMe status 0x4002")


@pytest.mark.parametrize(
    "script", ["exit 127", "exit 126", "trap '' TERM; sleep 60", "head -c 2000000 /dev/zero", "no-such-tool-here"]
)
def test_a_probe_that_proves_nothing_is_unknown(tmp_path: Path, script: str) -> None:
    put(tmp_path)
    reading = read(sensor_of(tmp_path, script, deadline_s=1.0))
    assert reading.sample is None
    assert "were not read" in (reading.error or "")


def test_a_dead_controller_is_told_without_the_probe(tmp_path: Path) -> None:
    put(tmp_path, state="dead")
    put(tmp_path, "nvme1")
    sample = read(sensor_of(tmp_path, "exit 127")).sample
    assert isinstance(sample, NvmeSample)
    assert [device.state for device in sample.devices] == ["dead", "live"]


def test_where_there_is_none(tmp_path: Path) -> None:
    assert "no NVMe" in (read(sensor_of(tmp_path, "exit 0")).not_applicable or "")
    put(tmp_path)
    inside = nvme_sensor(NvmeMachine(in_container=True, root=tmp_path))
    assert "container" in (read(inside).not_applicable or "")


def test_errors_are_compared_over_minutes(tmp_path: Path) -> None:
    put(tmp_path)
    machine = NvmeMachine(in_container=False, root=tmp_path)
    spans = []
    for now in (0.0, 60.0, 600.0, 1200.0, 100.0):
        line = json.dumps({"name": "nvme0", "log": log(media_errors=int(now)).hex()})
        sample = machine.parse([Ran(argv=("probe",), returncode=0, stdout=line)], now)
        spans.append(sample.interval_s)
    assert spans == [None, 60.0, 600.0, 600.0, None]


@given(st.text())
def test_no_output_raises(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    root = tmp_path_factory.getbasetemp() / "nvme-fuzz"
    if not root.exists():
        put(root)
    machine = NvmeMachine(in_container=False, root=root)
    (device,) = machine.parse([Ran(argv=("probe",), returncode=0, stdout=text)], 0.0).devices
    assert device.critical_warning is None
