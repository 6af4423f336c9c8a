"""The stand-ins for the tools: what they print is read by the product's own parsers, and they do as the state file says."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nodewatch.lab import hardware
from nodewatch.lab.layout import file_of
from nodewatch.sensors.dcgm_diag import parse
from nodewatch.sensors.recorded import fi_info, fi_pingpong, nccl

TOOLS = Path(str(file_of("tools")))


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    path = tmp_path / "tools.json"
    monkeypatch.setenv("NODEWATCH_LAB_TOOLS", str(path))
    monkeypatch.setenv("NODEWATCH_LAB_HARDWARE", str(tmp_path / "hardware"))

    def write(**faults: Any) -> Path:
        path.write_text(json.dumps({"seconds": 0.0, **faults}))
        return path

    return write


def run(tool: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([TOOLS / tool, *arguments], capture_output=True, text=True, timeout=30, check=False)


def test_each_can_be_executed() -> None:
    found = {path.name: os.access(path, os.X_OK) for path in TOOLS.iterdir() if path.name != "__pycache__"}
    assert found == dict.fromkeys(("dcgmi", "all_reduce_perf", "fi_info", "fi_pingpong", "nvidia-smi"), True)


def test_a_reset_clears_what_a_reset_clears_and_no_lost_gpu(
    told: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told()
    state = tmp_path / "hardware"
    monkeypatch.setenv("NODEWATCH_LAB_HARDWARE", str(state))
    state.write_text(hardware.healthy("i-1") + "gpu 2 remap_pending 1\n")
    assert run("nvidia-smi", "--gpu-reset").stdout == "All done.\n"
    assert hardware.parse(state.read_text()).gpus[2]["remap_pending"] == "0"

    state.write_text(hardware.healthy("i-1") + "gpu 2 lost 1\n")
    assert run("nvidia-smi", "--gpu-reset").returncode == 255
    assert hardware.parse(state.read_text()).gpus[2]["lost"] == "1"
    told(**{"nvidia-smi": {"refuse": True}})
    assert run("nvidia-smi", "--gpu-reset").returncode == 19


def test_without_a_state_file_all_is_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NODEWATCH_LAB_TOOLS", str(tmp_path / "none.json"))
    for command in (("dcgmi", "discovery", "-l"), ("dcgmi", "diag", "-r", "1", "-j"), ("fi_info",)):
        assert run(*command).returncode == 0


def test_the_diagnostic_knows_the_gpus_of_the_fake_nvml(told: Callable[..., Path], tmp_path: Path) -> None:
    told()
    (tmp_path / "hardware").write_text(hardware.healthy("i-1") + "gpu 2 lost 1\n")
    ended = run("dcgmi", "diag", "-r", "2", "-j")
    (sample,) = parse(ended.stdout)
    serials = hardware.parse(hardware.healthy("i-1")).gpus
    assert ended.returncode == 0 and len(sample.serials) == 7
    assert sample.serial_of("GPU", 3) == serials[3]["serial"] and sample.serial_of("GPU", 2) is None
    assert "7 GPUs found" in run("dcgmi", "discovery", "-l").stdout


@pytest.mark.parametrize(
    ("fault", "status", "failed"),
    [
        ({}, 0, []),
        ({"fail": {"gpu": 3, "test": "memory"}}, 205, [3]),
        ({"fail": {"gpu": 3, "test": "pcie", "severity": 4}}, 226, [3]),
        ({"fail": [{"gpu": 1, "test": "memory"}, {"gpu": 2, "test": "memory"}]}, 205, [1, 2]),
        ({"exit": 226}, 226, []),
    ],
)
def test_the_diagnostic(told: Callable[..., Path], fault: dict[str, Any], status: int, failed: list[int]) -> None:
    told(dcgm=fault)
    ended = run("dcgmi", "diag", "-r", "2", "-j")
    (sample,) = parse(ended.stdout)
    wrong = [result.ids[0] for result in sample.results if result.status == "fail" and not result.is_summary]
    assert (ended.returncode, wrong) == (status, failed)


def test_no_host_engine(told: Callable[..., Path]) -> None:
    told(dcgm={"no_engine": True})
    ended = run("dcgmi", "discovery", "-l")
    assert ended.returncode == 235 and "host engine" in ended.stdout


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_diagnostic_that_is_stopped_says_so(told: Callable[..., Path], number: int) -> None:
    log = told(dcgm={"hang": True}).with_suffix(".log")
    with subprocess.Popen([TOOLS / "dcgmi", "diag", "-r", "1", "-j"], stdout=subprocess.PIPE) as process:
        for _ in range(500):
            if log.exists():
                break
            time.sleep(0.02)
        time.sleep(0.3)
        process.send_signal(number)
        assert process.wait(10) == 203
    assert log.read_text().splitlines()[-1] == "dcgmi stopped"


@pytest.mark.parametrize(
    ("fault", "status", "largest"),
    [({}, 0, 486.29), ({"busbw_gbps": 210.0}, 0, 209.69), ({"wrong": 3}, 1, 486.29)],
)
def test_the_collective(told: Callable[..., Path], fault: dict[str, Any], status: int, largest: float) -> None:
    told(nccl=fault)
    ended = run("all_reduce_perf", "-b", "128M", "-e", "16G", "-f", "2", "-g", "8")
    sample = nccl.parse(ended.stdout.encode(), instance_type="p5.48xlarge")
    (only,) = sample.runs
    assert (ended.returncode, only.ranks, only.is_finished, len(only.rows)) == (status, 8, True, 8)
    assert only.rows[-1].slower == largest and (only.out_of_bounds or 0) == 2 * fault.get("wrong", 0)


@pytest.mark.parametrize("fault", [{"timeout": True}, {"gpus": 7}])
def test_collectives_that_fail(told: Callable[..., Path], fault: dict[str, Any]) -> None:
    told(nccl=fault)
    ended = run("all_reduce_perf", "-b", "128M", "-e", "1G", "-f", "2", "-g", "8", "-T", "60")
    assert ended.returncode != 0
    assert nccl.parse(ended.stdout.encode(), instance_type="p5.48xlarge").failures


@pytest.mark.parametrize(("fault", "devices"), [({}, 32), ({"devices": 31}, 31), ({"devices": 4}, 4)])
def test_the_list_of_devices(told: Callable[..., Path], fault: dict[str, Any], devices: int) -> None:
    told(fi_info=fault)
    sample = fi_info.parse(run("fi_info", "-p", "efa", "-t", "FI_EP_RDM").stdout.encode(), expected=32)
    assert len({item.domain for item in sample.endpoints}) == devices and len(sample.endpoints) == 2 * devices


def test_no_device_at_all(told: Callable[..., Path]) -> None:
    told(fi_info={"error": True})
    ended = run("fi_info", "-p", "efa", "-t", "FI_EP_RDM")
    assert ended.returncode != 0
    assert "No data available" in (fi_info.parse(ended.stderr.encode(), expected=32).error or "")


@pytest.mark.parametrize(("fault", "rows", "is_error"), [({}, 6, False), ({"error": True}, 0, True)])
def test_the_ping_pong(told: Callable[..., Path], fault: dict[str, Any], rows: int, is_error: bool) -> None:
    told(fi_pingpong={"seconds": 0.0, **fault})
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    with subprocess.Popen([TOOLS / "fi_pingpong", "-p", "efa", "-B", port]) as server:
        try:
            for _ in range(100):
                ended = run("fi_pingpong", "-p", "efa", "-I", "100", "-P", port, "127.0.0.1")
                if "refused" not in ended.stderr:
                    break
                time.sleep(0.05)
            server.wait(10)
        finally:
            server.kill()
    sample = fi_pingpong.parse(f"{ended.stdout}\n{ended.stderr}".encode())
    assert (len(sample.rows), bool(sample.errors), ended.returncode != 0) == (rows, is_error, is_error)


def test_they_need_nothing_of_the_product() -> None:
    for path in TOOLS.iterdir():
        if path.is_file():
            assert "nodewatch." not in path.read_text().replace("nodewatch.lab", "")
            compile(path.read_text(), str(path), "exec")
    assert sys.version_info >= (3, 11)
