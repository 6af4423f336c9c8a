"""The agent with GPUs: the rehearsal cluster's libnvidia-ml.so.1 under the real nvidia-ml-py, in the agent's own child."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from .world import ROOT, FakeController, Node, until

SOURCE = ROOT / "nodewatch" / "lab" / "libnvidia_ml.c"
pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc builds the library: apt-get install gcc")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("nvml")
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-o", str(home / "libnvidia-ml.so.1"), str(SOURCE), "-lpthread"], check=True
    )
    return home


@pytest.fixture
def gpu_node(node: Node, library: Path, controller: FakeController) -> Node:
    hardware = node.home / "hardware"
    lines = [f"gpu {n} uuid GPU-{n}\ngpu {n} bus 00000000:1{n}:00.0\n" for n in range(8)]
    hardware.write_text("driver 570.1\n" + "".join(lines))
    node.environment = {"LD_LIBRARY_PATH": str(library), "NODEWATCH_LAB_HARDWARE": str(hardware)}
    node.settings |= {"controller_url": controller.url, "nvml": "auto", "gpus": 8, "nvml_deadline_s": 1.0}
    node.tables = "".join(f"[checks.{name}]\nevery_s = 0.3\n" for name in ("gpu_lost", "gpu_count", "gpu_row_remap"))
    return node


def state(controller: FakeController) -> str:
    return str(controller.messages[-1]["verdict"]["state"]) if controller.messages else ""


def test_a_gpu_that_nvml_calls_lost_fails_the_node(gpu_node: Node, controller: FakeController) -> None:
    gpu_node.start()
    until(lambda: state(controller) == "healthy", what="healthy")
    with open(gpu_node.home / "hardware", "a") as hardware:
        hardware.write("gpu 3 lost 1\n")
    until(lambda: "gpu.lost" in controller.faults(), what="the finding")
    findings = controller.of_kind("verdict")[-1]["verdict"]["findings"]
    assert [(finding["fault"], finding["subject"]) for finding in findings] == [("gpu.lost", "GPU-3")]
    assert gpu_node.ask("prolog")["allow"] is False


def test_a_driver_that_hangs_makes_the_node_unknown_and_holds_up_nothing(
    gpu_node: Node, controller: FakeController
) -> None:
    gpu_node.start()
    until(lambda: state(controller) == "healthy", what="healthy")
    assert gpu_node.process is not None
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(gpu_node.process.pid)], capture_output=True, text=True, check=True
    )
    for pid in listed.stdout.split():
        os.kill(int(pid), signal.SIGSTOP)
    until(lambda: state(controller) == "unknown", what="unknown")
    answer = gpu_node.ask("prolog")
    if answer["counted"]:
        assert answer["allow"] is True
        assert "cannot tell" in answer["reason"]
    # The child was ended and another one answers.
    until(lambda: state(controller) == "healthy", what="healthy again")
    assert gpu_node.stop() < 1.0


def test_the_end_of_a_job_is_looked_into_at_once(gpu_node: Node, controller: FakeController) -> None:
    gpu_node.tables = ""  # by itself this check looks every 30 s
    gpu_node.start()
    until(lambda: state(controller) == "healthy", what="healthy")
    time.sleep(5.5)
    with open(gpu_node.home / "hardware", "a") as hardware:
        hardware.write("gpu 3 remap_pending 1\n")
    gpu_node.ask("epilog", id="17")
    until(lambda: "gpu.row_remap_pending" in controller.faults(), what="the finding")


def test_nobody_of_ours_holds_a_gpu_open_while_they_are_reset(gpu_node: Node, controller: FakeController) -> None:
    command = gpu_node.home / "reset"
    seen = gpu_node.home / "children"
    # What runs beside it is looked at for longer than several readings of NVML are apart.
    command.write_text(
        "#!/bin/sh\n"
        f"for turn in 1 2 3 4 5 6 7 8; do ps -o args= --ppid $PPID | grep -c nvml_child >> {seen}; sleep 0.2; done\n"
    )
    command.chmod(0o755)
    gpu_node.settings |= {"gpu_reset": [str(command)], "gpu_services": []}
    gpu_node.start()
    until(lambda: state(controller) == "healthy", what="healthy")
    controller.requests = [{"kind": "reset_gpu", "key": "c1:reset"}]
    answer = until(lambda: controller.of_kind("gpu_reset"), what="the answer")[0]
    assert (answer["key"], answer["ok"]) == ("c1:reset", True)
    assert seen.read_text().split() == ["0"] * 8
    until(lambda: state(controller) == "healthy", what="the GPUs are read again")
