"""`dcgmi diag` and `dcgmi health` as they were printed, through the loaders and the checks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewatch.cli.replay import judge
from nodewatch.errors import SensorError
from nodewatch.sensors import dcgm_diag, dcgm_health
from nodewatch.sensors.recorded._api import Recording
from nodewatch.sensors.recorded.dcgm import load

HERE = Path(__file__).parent
DIAG = sorted((HERE / "dcgm").iterdir())
HEALTH = sorted((HERE / "dcgm_health").iterdir())


def outline(sensor: str, path: Path) -> tuple[str, list[tuple[str, str, str, str]]]:
    document = judge(sensor, "", path)
    return document["status"], [(f["fault"], f["subject"], f["severity"], f["remedy"]) for f in document["findings"]]


@pytest.mark.parametrize(
    ("name", "status", "findings"),
    [
        ("h100_pass_r2.json", "ok", []),
        ("a100_pass_r1.json", "ok", []),
        (
            "h200_remap_failed.json",
            "findings",
            [("gpu.dcgm.row_remap_failure", "165223000005", "fatal", "replace")],
        ),
        (
            "b200_remap_pending.json",
            "findings",
            [("gpu.dcgm.pending_row_remap", "165223000002", "degraded", "reset_gpu")],
        ),
        ("a100_remap_pending.json", "findings", [("gpu.dcgm.pending_row_remap", "gpu-3", "degraded", "reset_gpu")]),
        ("a100_fail_ungraded.json", "findings", [("gpu.dcgm.gpu_memory", "gpu-6", "degraded", "human")]),
        ("a10g_faulty_memory.json", "findings", [("gpu.dcgm.memory_mismatch", "gpu-1", "fatal", "replace")]),
        ("a100_iterations.json", "findings", [("gpu.dcgm.low_bandwidth", "gpu-4", "degraded", "reset_gpu")]),
        ("h100_summary_only.json", "findings", [("gpu.dcgm.targeted_power", "gpus", "degraded", "human")]),
        (
            "h100_pass_with_error.json",
            "findings",
            [("gpu.dcgm.memory_alloc", "165223000003", "warn", "restart_app")],
        ),
        (
            "h100_persistence_off.json",
            "findings",
            [("config.persistence_mode", f"16522300{n:04d}", "warn", "restart_service") for n in range(8)],
        ),
        (
            "l40s_cuda_mismatch.json",
            "findings",
            [("gpu.dcgm.cuda_context", f"16522300{n:04d}", "warn", "restart_service") for n in range(4)],
        ),
        (
            # Configuration alone failed, the hardware was not tested, the summary repeats it, there is no serial number.
            "l4_config_then_skipped.json",
            "unknown",
            [("config.persistence_mode", f"gpu-{n}", "warn", "restart_service") for n in range(2)],
        ),
        ("h100_all_skipped.json", "unknown", []),
        ("h100_new_word.json", "unknown", []),
        ("runtime_error.json", "unknown", []),
        ("no_host_engine.txt", "unknown", []),
        ("not_installed.txt", "unknown", []),
        (
            "a100_table.txt",
            "findings",
            [
                ("gpu.dcgm.memory_bandwidth", "gpus", "degraded", "human"),
                ("gpu.dcgm.thermal_violations", "gpu-0", "degraded", "human"),
                ("config.persistence_mode", "gpu-0", "warn", "restart_service"),
            ],
        ),
        ("h100_table.txt", "findings", [("gpu.dcgm.row_remap_failure", "gpu-0", "fatal", "replace")]),
    ],
)
def test_diagnostics(name: str, status: str, findings: list[tuple[str, str, str, str]]) -> None:
    assert outline("dcgm", HERE / "dcgm" / name) == (status, findings)


@pytest.mark.parametrize(
    ("name", "status", "findings"),
    [
        ("healthy.json", "ok", []),
        (
            "double_bit.json",
            "findings",
            [
                ("gpu.dcgm.volatile_dbe_detected", "gpu-0", "fatal", "reset_gpu"),
                ("gpu.dcgm.pcie_replay_violation", "gpu-0", "warn", "reboot"),
            ],
        ),
        (
            "tree.txt",
            "findings",
            [
                ("gpu.dcgm.nvlink_down", "gpu-1", "degraded", "reset_gpu"),
                ("gpu.dcgm.pending_page_retirements", "gpu-0", "warn", "reset_gpu"),
            ],
        ),
        (
            "dcgm1.txt",
            "findings",
            [
                ("gpu.dcgm.pcie_replay_violation", "gpu-0", "warn", "reboot"),
                ("gpu.dcgm.corrupt_inforom", "gpu-1", "warn", "reset_gpu"),
            ],
        ),
    ],
)
def test_health(name: str, status: str, findings: list[tuple[str, str, str, str]]) -> None:
    assert outline("dcgm-health", HERE / "dcgm_health" / name) == (status, findings)


def test_every_recording_is_judged_here() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    assert [path.name for path in (*DIAG, *HEALTH) if f'"{path.name}"' not in source] == []


@pytest.mark.parametrize("path", [path for path in DIAG if path.suffix == ".json"], ids=lambda path: path.name)
def test_a_diagnostic_that_is_cut_off_is_never_ok(path: Path, tmp_path: Path) -> None:
    whole = path.read_bytes()
    end = whole.rindex(b"}")
    for at in range(0, end, 61):
        cut = tmp_path / "cut.json"
        cut.write_bytes(whole[:at])
        assert judge("dcgm", "", cut)["status"] != "ok", at


@pytest.mark.parametrize("path", [path for path in DIAG if "table" in path.name], ids=lambda path: path.name)
def test_a_table_that_is_cut_off_is_never_ok(path: Path, tmp_path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    for count in range(len(lines) - 1):
        cut = tmp_path / "cut.txt"
        cut.write_text("".join(lines[:count]), encoding="utf-8")
        assert judge("dcgm", "", cut)["status"] != "ok", count


@pytest.mark.parametrize("path", HEALTH, ids=lambda path: path.name)
def test_a_report_that_is_cut_off_is_never_ok(path: Path, tmp_path: Path) -> None:
    whole = path.read_bytes().rstrip()
    for at in range(len(whole) - 2):
        cut = tmp_path / "cut"
        cut.write_bytes(whole[:at])
        assert judge("dcgm-health", "", cut)["status"] != "ok", at


def test_two_documents_and_one_that_is_cut_off(tmp_path: Path) -> None:
    good = (HERE / "dcgm" / "h100_pass_r2.json").read_text(encoding="utf-8")
    both = tmp_path / "both.json"
    both.write_text(good + "\nnoise\n" + good, encoding="utf-8")
    assert len(list(load(Recording(path=both)))) == 2
    both.write_text(good + good[:300], encoding="utf-8")
    with pytest.raises(SensorError, match="cut off"):
        list(load(Recording(path=both)))


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "null", "hello", '{"DCGM Diagnostic": 7}', '{"tests": {}}', "\x00{" * 9]
)
@pytest.mark.parametrize("parse", [dcgm_diag.parse, dcgm_health.parse])
def test_what_is_no_document(text: str, parse: object) -> None:
    with pytest.raises(SensorError):
        list(parse(text))  # type: ignore[operator]


def test_many_braces_end_soon() -> None:
    for parse in (dcgm_diag.parse, dcgm_health.parse):
        with pytest.raises(SensorError):
            list(parse("{" * 1_000_000))


KEYS = st.sampled_from(
    [
        *(
            "DCGM Diagnostic",
            "DCGM GPU Diagnostic",
            "test_categories",
            "category",
            "tests",
            "name",
            "results",
            "status",
        ),
        *("warnings", "warning", "error_id", "error_severity", "gpu_ids", "entity_id", "test_summary", "entity_groups"),
        *("entities", "serial_num", "body", "Overall Health", "GPU", "children", "Errors", "value", "overflow"),
    ]
)
VALUES = st.sampled_from(["Pass", "Fail", "Skip", "Warn", "0,1", "GPU 3", "5", "Healthy", "Failure", "On", ""])
DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | VALUES | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=30,
)


@given(st.dictionaries(KEYS, DOCUMENTS, min_size=1, max_size=3))
def test_documents_of_other_shapes_raise_nothing_else(document: object) -> None:
    for parse in (dcgm_diag.parse, dcgm_health.parse):
        try:
            list(parse("noise " + json.dumps(document)))
        except SensorError:
            continue


@given(st.data())
def test_damaged_recordings_raise_nothing_else(data: st.DataObject) -> None:
    path = data.draw(st.sampled_from([*DIAG, *HEALTH]))
    text = path.read_text(encoding="utf-8")
    at = data.draw(st.integers(0, len(text)))
    damaged = text[:at] + data.draw(st.text(max_size=6)) + text[at + data.draw(st.integers(0, 40)) :]
    for parse in (dcgm_diag.parse, dcgm_health.parse):
        try:
            list(parse(damaged))
        except SensorError:
            continue
