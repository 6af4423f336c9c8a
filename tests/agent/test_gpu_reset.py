"""A GPU reset: real processes in the place of systemctl and nvidia-smi, which write down what they were asked for."""

from __future__ import annotations

import os
import select
import time
from pathlib import Path

import pytest

from nodewatch.agent.gpu_reset import GpuReset, ResetDone

SERVICES = ("nvidia-dcgm.service", "nvidia-fabricmanager.service")


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory first in PATH; what is called stands in its file `log`."""
    put(tmp_path, "systemctl", 'case $1 in is-active) printf "active\\ninactive\\n";; esac; exit 0')
    put(tmp_path, "nvidia-smi", "exit 0")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path


def put(where: Path, name: str, body: str) -> None:
    file = where / name
    file.write_text(f'#!/bin/sh\necho "{name} $*" >> {where}/log\n{body}\n')
    file.chmod(0o755)


def run(*, services: tuple[str, ...] = SERVICES, command: tuple[str, ...] = ("nvidia-smi", "--gpu-reset")) -> ResetDone:
    reset = GpuReset("k", command=command, services=services, now=time.monotonic())
    end = time.monotonic() + 20
    while time.monotonic() < end:
        done = reset.step(time.monotonic())
        if done is not None:
            return done
        select.select(reset.filenos(), (), (), 0.05)
    raise AssertionError("it did not end")


def called(tools: Path) -> list[str]:
    return (tools / "log").read_text().splitlines()


def test_only_services_that_ran_are_stopped_and_started_again(tools: Path) -> None:
    done = run()
    assert done == ResetDone(key="k", is_done=True, said="the GPUs were reset")
    assert called(tools) == [
        "systemctl is-active nvidia-dcgm.service nvidia-fabricmanager.service",
        "systemctl stop nvidia-dcgm.service",
        "nvidia-smi --gpu-reset",
        "systemctl start nvidia-dcgm.service",
    ]


def test_a_refusal_is_told_and_the_services_run_again(tools: Path) -> None:
    put(tools, "nvidia-smi", 'echo "GPU 00000000:53:00.0 is in use by another client."; exit 19')
    done = run()
    assert not done.is_done
    assert done.said == "nvidia-smi --gpu-reset failed (GPU 00000000:53:00.0 is in use by another client.)"
    assert called(tools)[-1] == "systemctl start nvidia-dcgm.service"


def test_a_service_that_does_not_stop_saves_the_gpus_from_a_reset(tools: Path) -> None:
    put(
        tools,
        "systemctl",
        'case $1 in is-active) printf "active\\nactive\\n";; stop) echo "timed out" >&2; exit 1;; esac',
    )
    done = run()
    assert (done.is_done, "could not be stopped (timed out)" in done.said) == (False, True)
    assert not any(line.startswith("nvidia-smi") for line in called(tools))


def test_a_service_that_does_not_come_back_is_no_success(tools: Path) -> None:
    put(
        tools,
        "systemctl",
        'case $1 in is-active) printf "active\\nactive\\n";; start) echo "no fabric" >&2; exit 1;; esac',
    )
    done = run()
    assert (done.is_done, "could not be started again (no fabric)" in done.said) == (False, True)


def test_no_nvidia_smi_is_one_sentence(tools: Path) -> None:
    done = run(command=("nvidia-smi-that-is-not-there",), services=())
    assert not done.is_done
    assert done.said == "nvidia-smi-that-is-not-there cannot be run (No such file or directory)"


def test_no_systemd_to_ask_stops_nothing(tools: Path) -> None:
    put(tools, "systemctl", "exit 1")
    assert run().is_done
    assert [line.split()[0] for line in called(tools)] == ["systemctl", "nvidia-smi"]
