"""The fake libnvidia-ml.so.1, called through the real nvidia-ml-py."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nodewatch.lab import hardware
from nodewatch.lab.layout import file_of

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc to compile the library with")

# Asks what a health check asks, then again after the test has changed the hardware under the open library.
PROGRAM = """
import json, sys
import pynvml as n
n.nvmlInit()
def ask(index):
    try:
        gpu = n.nvmlDeviceGetHandleByIndex(index)
        return {
            "uuid": n.nvmlDeviceGetUUID(gpu), "serial": n.nvmlDeviceGetSerial(gpu), "name": n.nvmlDeviceGetName(gpu),
            "bus": n.nvmlDeviceGetPciInfo(gpu).busId, "temperature": n.nvmlDeviceGetTemperature(gpu, 0),
            "remapped": n.nvmlDeviceGetRemappedRows(gpu), "ecc": n.nvmlDeviceGetTotalEccErrors(gpu, 1, 0),
            "total": n.nvmlDeviceGetMemoryInfo(gpu).total, "free": n.nvmlDeviceGetMemoryInfo(gpu, n.nvmlMemory_v2).free,
            "throttle": n.nvmlDeviceGetCurrentClocksEventReasons(gpu), "mig": n.nvmlDeviceGetMigMode(gpu),
            "generation": n.nvmlDeviceGetCurrPcieLinkGeneration(gpu), "busy": n.nvmlDeviceGetComputeRunningProcesses(gpu),
            "spares": n.nvmlDeviceGetRowRemapperHistogram(gpu).max,
        }
    except n.NVMLError as error:
        return {"error": error.value, "text": str(error)}
held = n.nvmlDeviceGetHandleByIndex(2)
for _ in sys.stdin:
    try:
        kept = n.nvmlDeviceGetTemperature(held, 0)
    except n.NVMLError as error:
        kept = error.value
    print(json.dumps({"driver": n.nvmlSystemGetDriverVersion(), "count": n.nvmlDeviceGetCount(), "held": kept,
                      "gpus": [ask(index) for index in range(n.nvmlDeviceGetCount())]}), flush=True)
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("nvml")
    source = file_of("libnvidia_ml.c")
    subprocess.run(
        ["gcc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-fvisibility=hidden",
         "-o", place / "libnvidia-ml.so.1", source, "-lpthread"],
        check=True, timeout=60,
    )  # fmt: skip
    return place


class Client:
    """A process that keeps NVML open."""

    def __init__(self, library: Path, state: Path) -> None:
        env = os.environ | {"LD_LIBRARY_PATH": str(library), "NODEWATCH_LAB_HARDWARE": str(state)}
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
        )

    def ask(self) -> Any:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


def test_a_healthy_instance_answers_as_eight_gpus(library: Path, tmp_path: Path) -> None:
    state = tmp_path / "hardware"
    state.write_text(hardware.healthy("i-1"))
    client = Client(library, state)
    try:
        answer = client.ask()
        assert (answer["driver"], answer["count"]) == (hardware.DRIVER, 8)
        third = answer["gpus"][2]
        assert third["uuid"] == hardware.gpu_uuid("i-1", 2)
        assert third["bus"] == "00000000:75:00.0"
        assert third["name"] == hardware.GPU_NAME
        assert third["remapped"] == [0, 0, 0, 0]
        assert third["free"] < third["total"] == 81559 * 1024 * 1024
        assert (third["throttle"], third["generation"], third["busy"], third["mig"]) == (0, 5, [], [0, 0])

        hardware.append(state, ["gpu 2 lost 1", "gpu 3 remap_uncorrected 2", "gpu 3 remap_pending 1"])
        hardware.append(state, ["gpu 4 ecc_uncorrected 7", "gpu 4 throttle 0x8", "kmsg 4 not for NVML"])
        answer = client.ask()
        assert answer["count"] == 8
        assert answer["held"] == 15
        assert answer["gpus"][2] == {"error": 15, "text": "GPU is lost"}
        assert answer["gpus"][3]["remapped"] == [0, 2, 1, 0]
        assert answer["gpus"][3]["spares"] == 3070
        assert (answer["gpus"][4]["ecc"], answer["gpus"][4]["throttle"]) == (7, 8)
        assert answer["gpus"][5]["remapped"] == [0, 0, 0, 0]
    finally:
        client.process.kill()
        client.process.wait()


def test_without_a_state_file_there_is_no_driver(library: Path, tmp_path: Path) -> None:
    env = os.environ | {"LD_LIBRARY_PATH": str(library), "NODEWATCH_LAB_HARDWARE": str(tmp_path / "none")}
    done = subprocess.run(
        [sys.executable, "-c", "import pynvml; pynvml.nvmlInit()"], env=env, capture_output=True, text=True, timeout=30
    )
    assert "Driver Not Loaded" in done.stderr
