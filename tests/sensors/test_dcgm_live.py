"""DCGM asked through a dcgmi of the test's own: answers of its releases, and every way of giving none."""

from __future__ import annotations

from pathlib import Path

import pytest

from nodewatch.model.gpu_samples import DcgmEngineSample, DcgmHealthSample
from nodewatch.sensors.dcgm_live import Dcgm, dcgm_sensors
from nodewatch.sensors.reading import Reading

from .tools import only, read, tool

CLIENT = "echo 'Version : 4.4.1'; echo 'Build ID : 12'; echo 'Build Date : 2025-09-01'"
ENGINE = "echo; echo 'Hostengine build info:'; echo 'Version : 4.2.3'; echo 'Build ID : 9'"
NO_ENGINE = (
    "echo 'Error: unable to establish a connection to the specified host: localhost'\n"
    "echo 'Error: Unable to connect to host engine. Host engine connection invalid/disconnected.'\nexit 235"
)
HEALTHY = '{"body":{"Overall Health":{"value":"Healthy"}},"header":["Health Monitor Report"]}'
NO_WATCHES = "echo 'Error: Health watches not enabled. Please enable watches. '; exit 255"
FAILURE = (
    '{"body":{"GPU":{"children":{"0":{"children":{"Errors":{"children":{"Memory system":{"children":'
    '{"overflow":{"value":["A DBE"]}},"value":"Failure"}}}},"value":"Failure"}}},"Overall Health":{"value":"Failure"}}}'
)


def ask(
    tmp_path: Path, patch: pytest.MonkeyPatch, script: str, *, which: int, mode: str = "auto", enabled: bool = False
) -> Reading:
    """What the engine's (0) or the watches' (1) sensor reads from a dcgmi that is `script`."""
    tool(tmp_path / "bin", "dcgmi", script)
    only(tmp_path / "bin", patch)
    wants = tmp_path / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir(parents=True)
    if enabled:
        (wants / "nvidia-dcgm.service").symlink_to("/nowhere")
    (tmp_path / "sys/module/nvidia").mkdir(parents=True)
    (tmp_path / "sys/module/nvidia/version").write_text("570.124.06\n")
    sensor = dcgm_sensors(Dcgm(mode=mode, expected_gpus=8, root=tmp_path), deadline_s=2.0)[which]
    reading = read(sensor)
    sensor.close()
    return reading


def test_an_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reading = ask(tmp_path, monkeypatch, f"{CLIENT}; {ENGINE}", which=0)
    assert reading.sample == DcgmEngineSample(
        is_answering=True, version="4.4.1", engine_version="4.2.3", driver_version="570.124.06"
    )


@pytest.mark.parametrize(("mode", "enabled"), [("on", False), ("auto", True)])
def test_an_engine_that_should_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, enabled: bool) -> None:
    sample = ask(tmp_path, monkeypatch, f"{CLIENT}; exit 235", which=0, mode=mode, enabled=enabled).sample
    assert isinstance(sample, DcgmEngineSample)
    assert (sample.is_answering, sample.version) == (False, "4.4.1")


def test_an_engine_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = ask(tmp_path, monkeypatch, "trap '' TERM; sleep 60", which=0, enabled=True).sample
    assert isinstance(sample, DcgmEngineSample)
    assert not sample.is_answering
    assert "did not answer" in sample.said


@pytest.mark.parametrize(
    "script",
    [
        f'[ "$1" = -v ] && {{ {CLIENT}; exit 235; }}\n{NO_ENGINE}',
        NO_WATCHES,
        "exit 127",
        "sleep 60",
        "echo 'PARSE ERROR'; exit 1",
    ],
)
@pytest.mark.parametrize("which", [0, 1])
def test_none_is_meant_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, which: int) -> None:
    assert ask(tmp_path, monkeypatch, script, which=which).not_applicable is not None


@pytest.mark.parametrize(
    ("script", "which"),
    [(script, which) for script in ("exit 126", "exit 127", "exit 1", "printf '\\377\\376'") for which in (0, 1)]
    + [("sleep 60", 1)],
)
def test_what_tells_nothing_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, which: int
) -> None:
    reading = ask(tmp_path, monkeypatch, script, which=which, enabled=True)
    assert (reading.sample, reading.not_applicable) == (None, None)
    assert reading.error


def test_health(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ask(tmp_path, monkeypatch, f"echo '{HEALTHY}'", which=1).sample == DcgmHealthSample(overall="healthy")


def test_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = ask(tmp_path, monkeypatch, f"echo '{FAILURE}'", which=1).sample
    assert isinstance(sample, DcgmHealthSample)
    assert [(i.entity, i.system, i.health, i.text) for i in sample.incidents] == [
        (0, "Memory system", "failure", "A DBE")
    ]


def test_a_report_that_is_cut_off_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "cut off" in (ask(tmp_path, monkeypatch, f"echo '{HEALTHY[:40]}'", which=1, enabled=True).error or "")


def test_watches_that_are_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reading = ask(tmp_path, monkeypatch, NO_WATCHES, which=1, enabled=True)
    assert "dcgmi health -s a" in (reading.not_applicable or "")


def test_watches_that_should_be_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "dcgmi health -s a" in (ask(tmp_path, monkeypatch, NO_WATCHES, which=1, mode="on").error or "")


def test_no_engine_where_one_should_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "nv-hostengine" in (ask(tmp_path, monkeypatch, NO_ENGINE, which=1, mode="on").error or "")


def test_where_it_is_not_asked(tmp_path: Path) -> None:
    def absent(which: str | None = "/usr/bin/dcgmi", *, mode: str = "auto", gpus: int | None = 8) -> str:
        return Dcgm(mode=mode, expected_gpus=gpus, root=tmp_path, which=lambda _: which).absent() or ""

    assert "off" in absent(mode="off")
    assert "no GPU is expected" in absent(gpus=0)
    assert "not installed" in absent(None)
    assert "no NVIDIA GPU" in absent(gpus=None)
    assert absent() == ""
    # Where it must run, dcgmi that is missing is told.
    assert absent(None, mode="on") == ""
