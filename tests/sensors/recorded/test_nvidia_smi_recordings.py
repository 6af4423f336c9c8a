"""`nvidia-smi -q -x` of several driver generations, through the loader and the checks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewatch.cli.replay import judge
from nodewatch.errors import SensorError
from nodewatch.model.gpu_samples import EccCounts, GpuSample
from nodewatch.sensors.recorded._api import Recording
from nodewatch.sensors.recorded.nvidia_smi import load

HERE = Path(__file__).parent / "nvidia_smi"
RECORDINGS = sorted(HERE.iterdir())
DOCUMENTS = [path for path in RECORDINGS if path.suffix == ".xml"]


def outline(name: str, **options: object) -> tuple[str, list[tuple[str, int | None, str, str]]]:
    document = judge("nvidia-smi", str(options.pop("instance_type", "")), HERE / name, **options)  # type: ignore[arg-type]
    findings = document["findings"]
    return document["status"], [(f["fault"], f["evidence"].get("index"), f["severity"], f["remedy"]) for f in findings]


def only(name: str) -> GpuSample:
    (sample,) = load(Recording(path=HERE / name))
    return sample


@pytest.mark.parametrize(
    ("name", "status", "findings"),
    [
        ("a100_healthy.xml", "ok", []),
        ("h100_healthy.xml", "ok", []),
        ("h200_healthy.xml", "ok", []),
        ("b200_healthy.xml", "ok", []),
        ("v100_healthy.xml", "ok", []),
        ("h100_full_load.xml", "ok", []),
        ("h100_seven_of_eight.xml", "ok", []),
        ("h100_two_with_processes.xml", "ok", []),
        ("h100_before.xml", "ok", []),
        ("h100_after.xml", "ok", []),
        ("a100_mig.xml", "ok", []),
        ("a100_dram_history.xml", "ok", [("gpu.ecc_history", 0, "info", "none")]),
        ("a10g_half_the_lanes.xml", "findings", [("gpu.pcie_width", n, "warn", "reboot") for n in range(4)]),
        ("a10g_inforom.xml", "findings", [("gpu.inforom_corrupt", 0, "warn", "human")]),
        (
            "l40s_idle_no_persistence.xml",
            "findings",
            [("config.persistence_mode", n, "warn", "restart_service") for n in range(4)],
        ),
        ("a100_power_brake.xml", "findings", [("gpu.hw_power_brake", 0, "degraded", "replace")]),
        ("a100_sram_uncorrectable.xml", "findings", [("gpu.ecc_uncorrectable", 1, "fatal", "reset_gpu")]),
        ("b200_every_value_says_reset.xml", "findings", [("gpu.recovery_action", 0, "fatal", "reset_gpu")]),
        ("b200_fabric_degraded.xml", "findings", [("gpu.fabric_fault", 1, "degraded", "reset_gpu")]),
        ("b200_reset_required.xml", "findings", [("gpu.recovery_action", 1, "fatal", "reset_gpu")]),
        ("h100_err.xml", "findings", [("gpu.unreadable", 1, "degraded", "reset_gpu")]),
        (
            "h100_fabric_in_progress.xml",
            "findings",
            [("gpu.fabric_not_ready", n, "degraded", "restart_service") for n in range(2)],
        ),
        ("h100_gpu_lost.xml", "findings", [("gpu.lost", 1, "fatal", "reboot")]),
        ("h100_handle_then_xml.xml", "findings", [("gpu.lost", 2, "fatal", "reboot")]),
        ("handle_lost.txt", "findings", [("gpu.lost", 0, "fatal", "reboot")]),
        ("handle_only.txt", "findings", [("gpu.lost", 0, "fatal", "reboot")]),
        ("h100_narrow_link.xml", "findings", [("gpu.pcie_width", 1, "degraded", "reboot")]),
        (
            "h100_remap_pending.xml",
            "findings",
            [
                ("gpu.ecc_uncorrectable", 1, "degraded", "reset_gpu"),
                ("gpu.row_remap_pending", 1, "degraded", "reset_gpu"),
            ],
        ),
        ("h100_reset_recommended.xml", "findings", [("gpu.recovery_action", 1, "degraded", "reset_gpu")]),
        ("h100_sram_threshold.xml", "findings", [("gpu.ecc_sram_threshold", 1, "fatal", "replace")]),
        (
            "h100_thermal.xml",
            "findings",
            [
                ("gpu.hw_thermal_slowdown", 1, "degraded", "human"),
                ("gpu.temperature_slowdown", 1, "degraded", "human"),
            ],
        ),
        ("h200_remap_failed.xml", "findings", [("gpu.row_remap_failed", 1, "fatal", "replace")]),
        (
            "v100_double_bit.xml",
            "findings",
            [
                ("gpu.ecc_uncorrectable", 1, "fatal", "reset_gpu"),
                ("gpu.page_retirement_pending", 1, "degraded", "reset_gpu"),
            ],
        ),
        ("mismatch.txt", "unknown", [("config.driver_mismatch", None, "warn", "reboot")]),
        ("no_driver.txt", "unknown", []),
        ("no_devices.txt", "unknown", []),
    ],
)
def test_recordings(name: str, status: str, findings: list[tuple[str, int | None, str, str]]) -> None:
    assert outline(name) == (status, findings)


def test_every_recording_is_judged_here() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    assert [path.name for path in RECORDINGS if f'"{path.name}"' not in source] == []


@pytest.mark.parametrize(
    ("name", "kind", "missing"),
    [
        ("h100_seven_of_eight.xml", "p5.48xlarge", True),
        ("h100_healthy.xml", "p5.48xlarge", False),
        ("no_devices.txt", "p5.48xlarge", True),
        ("h100_seven_of_eight.xml", "m7i.large", False),
    ],
)
def test_the_instance_type_says_how_many(name: str, kind: str, missing: bool) -> None:
    status, findings = outline(name, instance_type=kind)
    assert status == ("findings" if missing else "ok")
    assert [fault for fault, *_ in findings] == (["gpu.missing"] if missing else [])


def test_counters_are_judged_by_their_rate() -> None:
    status, findings = outline("h100_after.xml", previous=HERE / "h100_before.xml", interval_s=60.0)
    assert status == "findings"
    assert [(fault, severity) for fault, _, severity, _ in findings] == [
        ("gpu.pcie_replays", "degraded"),
        ("gpu.ecc_correctable_rate", "warn"),
    ]
    # The same growth over a month is none.
    assert outline("h100_after.xml", previous=HERE / "h100_before.xml", interval_s=2.6e6) == ("ok", [])


@pytest.mark.parametrize(
    ("name", "index", "expected"),
    [
        (
            "a100_sram_uncorrectable.xml",
            1,
            EccCounts(correctable=0, uncorrectable=1, sram_uncorrectable=1, dram_uncorrectable=0),
        ),
        (
            "v100_double_bit.xml",
            1,
            EccCounts(correctable=0, uncorrectable=1, sram_uncorrectable=0, dram_uncorrectable=1),
        ),
        (
            "h100_remap_pending.xml",
            1,
            EccCounts(correctable=0, uncorrectable=1, sram_uncorrectable=0, dram_uncorrectable=1),
        ),
    ],
)
def test_three_layouts_of_ecc_counts(name: str, index: int, expected: EccCounts) -> None:
    assert only(name).gpus[index].ecc_volatile == expected


def test_what_is_read_of_one_gpu() -> None:
    sample = only("h100_healthy.xml")
    gpu = sample.gpus[0]
    assert (sample.driver_version, len(sample.gpus), sample.expected, sample.source) == (
        "550.144.03",
        8,
        8,
        "nvidia-smi",
    )
    assert (gpu.serial, gpu.name, gpu.memory_total_mib) == ("1652300000000", "NVIDIA H100 80GB HBM3", 81559)
    assert (gpu.pcie_generation, gpu.pcie_generation_max, gpu.pcie_width, gpu.pcie_width_max) == (5, 5, 16, 16)
    assert (gpu.temperature_c, gpu.temperature_margin_c, gpu.slowdown_margin_c) == (31, 55, -2)
    assert (gpu.clock_reasons, gpu.hw_thermal_us, gpu.performance_state) == (frozenset({"idle"}), 0, 0)
    assert (gpu.fabric_state, gpu.fabric_status, gpu.recovery_action) == ("completed", "success", "none")
    assert (gpu.remap_banks, gpu.mig_enabled, gpu.persistence) == ((2560, 0, 0, 0, 0), False, True)
    assert only("a100_healthy.xml").gpus[0].clock_reasons == frozenset({"idle"})
    assert only("v100_healthy.xml").gpus[0].remap_pending is None
    assert only("b200_every_value_says_reset.xml").gpus[0].ecc_volatile == EccCounts()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_a_document_that_is_cut_off_is_never_ok(path: Path, tmp_path: Path) -> None:
    whole = path.read_bytes()
    end = whole.rindex(b"</nvidia_smi_log>")
    for at in [*range(0, end, 4999), *range(max(0, end - 30), end + 16)]:
        cut = tmp_path / "cut.xml"
        cut.write_bytes(whole[:at])
        assert judge("nvidia-smi", "p5.48xlarge", cut)["status"] == "unknown" or b"Unable to determine" in whole, at


def test_several_documents_and_one_that_is_cut_off(tmp_path: Path) -> None:
    text = (HERE / "h100_healthy.xml").read_text(encoding="utf-8")
    path = tmp_path / "both.xml"
    path.write_text(text + text, encoding="utf-8")
    assert len(list(load(Recording(path=path)))) == 2
    for end in (60, 2000):
        path.write_text(text + text[:end], encoding="utf-8")
        with pytest.raises(SensorError, match="cut off"):
            list(load(Recording(path=path)))


@pytest.mark.parametrize(
    "text",
    [
        '<!DOCTYPE nvidia_smi_log [<!ENTITY a "b">]><nvidia_smi_log><gpu id="&a;"/></nvidia_smi_log>',
        "<!DOCTYPE x [ ]>\n<nvidia_smi_log></nvidia_smi_log>",
        "<nvidia_smi_log><!ENTITY a 'b'></nvidia_smi_log>",
        "<nvidia_smi_log>&undefined;</nvidia_smi_log>",
        "<nvidia_smi_log><gpu></nvidia_smi_log>",
        "",
        "hello",
        "<?xml version='1.0'?>",
        "bash: nvidia-smi: command not found",
        "Failed to initialize NVML: Unknown Error",
    ],
)
def test_what_is_not_read(text: str, tmp_path: Path) -> None:
    path = tmp_path / "x.xml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SensorError):
        list(load(Recording(path=path)))


def test_a_gpu_that_is_counted_and_not_described_is_unknown(tmp_path: Path) -> None:
    text = (HERE / "h100_healthy.xml").read_text(encoding="utf-8")
    path = tmp_path / "x.xml"
    path.write_text(text.replace("<attached_gpus>8<", "<attached_gpus>9<"), encoding="utf-8")
    document = judge("nvidia-smi", "", path)
    assert (document["status"], document["findings"]) == ("unknown", [])
    path.write_text(re.sub(r"(<gpu id=.*?>).*?</gpu>", r"\1</gpu>", text, count=1, flags=re.DOTALL), encoding="utf-8")
    assert judge("nvidia-smi", "p5.48xlarge", path)["status"] == "unknown"


VALUES = st.sampled_from(
    ["N/A", "[N/A]", "Unknown Error", "ERR!", "GPU is lost", "-1", "99999999999999999999", "Yes", ""]
)


@given(st.data())
def test_damaged_documents_raise_nothing_else(data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(RECORDINGS))
    text = path.read_text(encoding="utf-8")
    kind = data.draw(st.sampled_from(["value", "cut", "noise"]))
    if kind == "value":
        values = [found.span(1) for found in re.finditer(r">([^<>\n]+)</", text)] or [(0, 0)]
        start, end = data.draw(st.sampled_from(values[:200]))
        text = text[:start] + data.draw(VALUES | st.text(max_size=8)) + text[end:]
    elif kind == "cut":
        at = data.draw(st.integers(0, len(text)))
        text = text[:at] + text[at + data.draw(st.integers(0, 300)) :]
    else:
        at = data.draw(st.integers(0, len(text)))
        text = text[:at] + data.draw(st.text(max_size=20)) + text[at:]
    damaged = Recording(path=_file(text))
    try:
        list(load(damaged))
    except SensorError:
        return


def _file(text: str) -> Path:
    class Given(type(Path())):  # type: ignore[misc]
        """A path whose content is in memory: Hypothesis runs thousands of examples."""

        def open(self, *_: object, **__: object) -> object:
            import io

            return io.BytesIO(text.encode("utf-8", "replace"))

    return Given("given.xml")
