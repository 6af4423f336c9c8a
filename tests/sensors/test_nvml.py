"""NVML through its child process: the real nvidia-ml-py on a small libnvidia-ml.so.1 that is compiled here."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewatch.errors import SensorError
from nodewatch.model.samples import GpuSample
from nodewatch.sensors.nvml import NvmlSensor, has_nvidia_device, parse_answer
from nodewatch.sensors.reading import Reading

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc builds the library: apt-get install gcc")

# What each GPU does is one character of the file that NW_GPUS names: w well, l lost, p pending remap, f failed remap,
# u unreadable, h hangs; the file's length is the count, and an empty one means that the driver is not loaded.
SOURCE = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static char state[64];
static int load(void) {
    const char *path = getenv("NW_GPUS");
    FILE *file = path ? fopen(path, "r") : NULL;
    memset(state, 0, sizeof state);
    if (file) { if (!fgets(state, sizeof state, file)) state[0] = 0; fclose(file); }
    state[strcspn(state, "\n")] = 0;
    return (int)strlen(state);
}
static int act(void *handle) {
    load();
    switch (state[(long)handle - 1]) {
    case 'l': return 15;
    case 'u': return 999;
    case 'h': for (;;) pause();
    }
    return 0;
}
int nvmlInitWithFlags(unsigned flags) { (void)flags; return load() ? 0 : 9; }
int nvmlInit_v2(void) { return load() ? 0 : 9; }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int code) {
    return code == 9 ? "Driver Not Loaded" : code == 15 ? "GPU is lost" : "Unknown Error";
}
int nvmlSystemGetDriverVersion(char *to, unsigned size) { snprintf(to, size, "570.1"); return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = (unsigned)load(); return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
    *handle = (void *)(long)(index + 1);
    return act(*handle);
}
int nvmlDeviceGetUUID(void *handle, char *to, unsigned size) {
    snprintf(to, size, "GPU-%ld", (long)handle - 1);
    return act(handle);
}
int nvmlDeviceGetName(void *handle, char *to, unsigned size) { (void)handle; snprintf(to, size, "Fake"); return 0; }
int nvmlDeviceGetSerial(void *handle, char *to, unsigned size) { (void)handle; (void)to; (void)size; return 3; }
struct pci { char legacy[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; };
int nvmlDeviceGetPciInfo_v3(void *handle, struct pci *pci) {
    memset(pci, 0, sizeof *pci);
    snprintf(pci->bus_id, 32, "00000000:%02lx:00.0", 0x10 + (long)handle - 1);
    return 0;
}
int nvmlDeviceGetTemperature(void *handle, int sensor, unsigned *to) { (void)handle; (void)sensor; *to = 41; return 0; }
int nvmlDeviceGetRemappedRows(void *handle, unsigned *c, unsigned *u, unsigned *pending, unsigned *failed) {
    int code = act(handle);
    *c = 0; *u = 2; *pending = state[(long)handle - 1] == 'p'; *failed = state[(long)handle - 1] == 'f';
    return code;
}
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("nvml")
    (home / "nvml.c").write_text(SOURCE)
    argv = ["gcc", "-shared", "-fPIC", "-o", str(home / "libnvidia-ml.so.1"), str(home / "nvml.c")]
    subprocess.run(argv, check=True)
    return home


@pytest.fixture
def gpus(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    state = tmp_path / "gpus"
    monkeypatch.setenv("LD_LIBRARY_PATH", str(library))
    monkeypatch.setenv("NW_GPUS", str(state))
    return state


def sensor_of(tmp_path: Path, *, expected: int | None = 4, deadline_s: float = 20.0, mode: str = "auto") -> NvmlSensor:
    return NvmlSensor(deadline_s=deadline_s, expected=expected, mode=mode, pci_devices=tmp_path)


@pytest.fixture
def sensor(tmp_path: Path) -> Iterator[NvmlSensor]:
    made = sensor_of(tmp_path)
    yield made
    made.close()


def read(sensor: NvmlSensor, seconds: float = 30.0) -> Reading:
    sensor.start(time.monotonic())
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        reading = sensor.result(time.monotonic())
        if reading is not None:
            return reading
        due = sensor.due_at()
        assert due is not None
        select.select(list(sensor.filenos()), [], [], max(0.0, min(due, end) - time.monotonic()))
    raise AssertionError("no reading")


def sample(reading: Reading) -> GpuSample:
    assert isinstance(reading.sample, GpuSample), reading
    return reading.sample


def test_well(sensor: NvmlSensor, gpus: Path) -> None:
    gpus.write_text("wwpf")
    got = sample(read(sensor))
    assert (got.driver_version, got.expected, len(got.gpus), got.unreadable) == ("570.1", 4, 4, ())
    first = got.gpus[0]
    assert (first.uuid, first.pci_bus_id, first.serial, first.name) == ("GPU-0", "00000000:10:00.0", None, "Fake")
    assert (first.temperature_c, first.remapped_uncorrectable) == (41, 2)
    assert [gpu.remap_pending for gpu in got.gpus] == [False, False, True, False]
    assert [gpu.remap_failed for gpu in got.gpus] == [False, False, False, True]


def test_a_gpu_that_is_lost_keeps_its_name_and_the_child_stays(sensor: NvmlSensor, gpus: Path) -> None:
    gpus.write_text("wwww")
    read(sensor)
    gpus.write_text("wlwu")
    got = sample(read(sensor))
    assert [gpu.is_lost for gpu in got.gpus] == [False, True, False]
    assert (got.gpus[1].uuid, got.gpus[1].pci_bus_id) == ("GPU-1", "00000000:11:00.0")
    assert got.unreadable == ((3, "Unknown Error"),)
    assert sensor.restarts == 1


def test_a_call_that_hangs_costs_one_reading(tmp_path: Path, gpus: Path) -> None:
    gpus.write_text("wwww")
    sensor = sensor_of(tmp_path, deadline_s=2.5)
    sample(read(sensor))
    gpus.write_text("whww")
    reading = read(sensor)
    assert "did not answer within 2.5 s" in (reading.error or "")
    gpus.write_text("wwww")
    assert len(sample(read(sensor)).gpus) == 4
    assert sensor.restarts == 2
    sensor.close()


def test_a_child_that_dies_costs_one_reading(sensor: NvmlSensor, gpus: Path) -> None:
    gpus.write_text("wwww")
    read(sensor)
    assert sensor._process is not None
    sensor._process.kill()
    reading = read(sensor)
    if reading.error is not None:
        reading = read(sensor)
    assert len(sample(reading).gpus) == 4


def test_no_driver_is_unknown_where_gpus_are_expected(tmp_path: Path, gpus: Path) -> None:
    gpus.write_text("")
    sensor = sensor_of(tmp_path, expected=8)
    assert "Driver Not Loaded" in (read(sensor).error or "")
    sensor.close()


@pytest.mark.parametrize("has_library", [True, False])
def test_a_machine_without_gpus_is_not_applicable(
    tmp_path: Path, gpus: Path, monkeypatch: pytest.MonkeyPatch, has_library: bool
) -> None:
    gpus.write_text("")
    if not has_library:
        monkeypatch.setenv("LD_LIBRARY_PATH", "")
    sensor = sensor_of(tmp_path, expected=None)
    assert read(sensor).not_applicable
    # The child is gone, and NVML is left alone for a while.
    assert sensor._process is None
    assert read(sensor).not_applicable


def test_off_and_no_gpus_expected_start_nothing(tmp_path: Path) -> None:
    for sensor in (sensor_of(tmp_path, mode="off"), sensor_of(tmp_path, expected=0)):
        assert read(sensor).not_applicable
        assert sensor.restarts == 0


def test_a_missing_library_is_unknown_where_nvml_is_on_or_a_gpu_is_on_the_bus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", "")
    on = sensor_of(tmp_path, expected=None, mode="on")
    assert "NVML cannot be read" in (read(on).error or "")
    device = tmp_path / "0000:53:00.0"
    device.mkdir()
    (device / "vendor").write_text("0x10de\n")
    (device / "class").write_text("0x030200\n")
    assert has_nvidia_device(tmp_path)
    seen = sensor_of(tmp_path, expected=None)
    assert "NVML cannot be read" in (read(seen).error or "")
    on.close()
    seen.close()


@given(st.text())
def test_answers_that_are_none(text: str) -> None:
    with pytest.raises(SensorError):
        parse_answer(text, expected=8)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda c: st.lists(c) | st.dictionaries(st.sampled_from(["gpus", "driver", "unreadable", "uuid", "index"]), c),
    )
)
def test_answers_of_another_shape(value: object) -> None:
    import json

    try:
        got = parse_answer(json.dumps(value), expected=8)
    except SensorError:
        return
    assert got.gpus == ()


def test_no_child_is_left(tmp_path: Path, gpus: Path) -> None:
    gpus.write_text("wwww")
    sensor = sensor_of(tmp_path)
    read(sensor)
    assert sensor._process is not None
    pid = sensor._process.pid
    sensor.close()
    time.sleep(0.1)
    if sensor._stuck is not None:
        sensor._stuck.wait(5)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
