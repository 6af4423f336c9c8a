"""Shapes of the GPUs' tools that public logs have, each small and of our own writing, and what each amounts to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nodewatch.cli.replay import judge

Outline = tuple[str, list[tuple[str, str, str, str]]]
RULE = "+---------------------------+------------------------------------------------+\n"
HEAD = (
    RULE + "| Diagnostic                | Result                                         |\n" + RULE.replace("-", "=")
)


def row(left: str, right: str) -> str:
    return f"| {left:25} | {right:46} |\n"


def message(kind: str, text: str) -> str:
    parts = [text[at : at + 45] for at in range(0, len(text), 45)]
    return "".join(row(kind if number == 0 else "", part) for number, part in enumerate(parts))


def section(name: str) -> str:
    return f"+-----  {name}  ".ljust(28, "-") + "+" + "-" * 48 + "+\n"


META = row("DCGM Version", "3.3.8") + row("Driver Version Detected", "535.309.01")
PASSES = section("Deployment") + row("Inforom", "Pass") + section("Hardware") + row("GPU Memory", "Pass - All")
FAILS = section("Hardware") + row("GPU Memory", "Pass - GPUs: 0, 2") + row("", "Fail - GPU: 1")
ABORTED = "Aborting the iterative runs of the diagnostic due to failure: Timeout\n"
PERSISTENCE = ", ".join(f"Persistence mode for GPU {number} is currently disabled." for number in range(3))
TABLES: dict[str, tuple[str, Outline]] = {
    "metadata without its heading": (HEAD + META + PASSES + RULE, ("ok", [])),
    "colours": (
        f"\x1b[1m{HEAD}\x1b[0m{PASSES.replace('Pass', chr(27) + '[32mPass' + chr(27) + '[0m')}{RULE}",
        ("ok", []),
    ),
    "two of one machine": (HEAD + META + PASSES + RULE + HEAD + META + PASSES + RULE, ("ok", [])),
    "the second of two fails": (
        HEAD
        + PASSES
        + RULE
        + HEAD
        + FAILS
        + message("Warning", "GPU 1 Found 3 faulty memory elements on GPU 1")
        + RULE,
        ("findings", [("gpu.dcgm.faulty_memory", "gpu-1", "fatal", "replace")]),
    ),
    "the first of two has no end": (HEAD + PASSES + HEAD + PASSES + RULE, ("unknown", [])),
    "an iteration that failed beside its table": (
        HEAD + PASSES + RULE + "Running iteration 2 of 3...\n" + ABORTED,
        ("unknown", []),
    ),
    "cut off, and failed before that": (
        HEAD + FAILS + message("Warning", "GPU 1 Max power of 224.1 did not reach desired power minimum of 224.2"),
        ("findings", [("gpu.dcgm.target_power", "gpu-1", "degraded", "reset_gpu")]),
    ),
    "a number without a colon": (
        HEAD + section("Stress") + row("Targeted Stress", "Fail - GPU 2") + row("Targeted Power", "Pass - All") + RULE,
        ("findings", [("gpu.dcgm.targeted_stress", "gpu-2", "degraded", "human")]),
    ),
    "numbers that lost their commas": (
        HEAD + section("Stress") + row("Targeted Power", "Pass - GPUs: 0   2") + row("", "Fail - GPU: 1") + RULE,
        ("findings", [("gpu.dcgm.targeted_power", "gpu-1", "degraded", "human")]),
    ),
    "one message about all GPUs": (
        HEAD + section("Deployment") + row("Persistence Mode", "Fail") + message("Error", PERSISTENCE) + RULE,
        ("findings", [("config.persistence_mode", "gpus", "warn", "restart_service")]),
    ),
}
PASSED = {
    "test_categories": [
        {"category": "Hardware", "tests": [{"name": "m", "results": [{"gpu_id": 0, "status": "Pass"}]}]}
    ]
}
RUN = {"DCGM GPU Diagnostic": PASSED}
DOCUMENTS: dict[str, tuple[Any, str]] = {
    "iterations": ({"iterations": [RUN, RUN], "result": "Pass"}, "ok"),
    "an iteration that was killed": ({"iterations": [RUN, None], "result": "Fail", "warning": "was killed"}, "unknown"),
    "an overall result that no test explains": ({**RUN, "Overall Result": "Fail"}, "unknown"),
    "a runtime error of another name": ({"DCGM Diagnostic": {**PASSED, "Error": "out of memory"}}, "unknown"),
    "a runtime error that is a list": ({"DCGM Diagnostic": {**PASSED, "runtime_error": ["x"]}}, "unknown"),
}
HANDLE = "Unable to determine the device handle for "
GPU = """<gpu id="00000000:18:00.0"><uuid>GPU-1</uuid><ecc_errors><unrepairable_memory>{}</unrepairable_memory></ecc_errors>
<remapped_rows><remapped_row_pending>No</remapped_row_pending><remapped_row_failure>No</remapped_row_failure></remapped_rows></gpu>"""
LOG = "<?xml version='1.0'?>\n<nvidia_smi_log><attached_gpus>{}</attached_gpus>"
SMI: dict[str, tuple[str, Outline]] = {
    "two GPUs without a handle": (
        f"{HANDLE}GPU3: 0000:60:00.0: Unknown Error\n{HANDLE}GPU5: 0000:A0:00.0: Unknown Error\n",
        ("findings", [("gpu.lost", f"0000:{bus}:00.0", "fatal", "reboot") for bus in ("60", "A0")]),
    ),
    "it stops at a lost GPU in the middle": (
        f"{LOG.format(8)}{GPU.format('N/A')}\n{HANDLE}GPU0000:5D:00.0: GPU is lost.  Reboot the system to recover this GPU\n",
        ("findings", [("gpu.lost", "0000:5D:00.0", "fatal", "reboot")]),
    ),
    "no repair is left": (
        f"{LOG.format(1)}{GPU.format('Yes')}</nvidia_smi_log>",
        ("findings", [("gpu.row_remap_failed", "GPU-1", "fatal", "replace")]),
    ),
    "every repair is left": (f"{LOG.format(1)}{GPU.format('No')}</nvidia_smi_log>", ("ok", [])),
    "text and no XML": ("==============NVSMI LOG==============\n\nAttached GPUs : 1\n", ("unknown", [])),
}


def outline(sensor: str, text: str, folder: Path, instance_type: str = "") -> Outline:
    path = folder / "recording"
    path.write_text(text, encoding="utf-8")
    document = judge(sensor, instance_type, path)
    return document["status"], [(f["fault"], f["subject"], f["severity"], f["remedy"]) for f in document["findings"]]


@pytest.mark.parametrize("name", TABLES)
def test_tables_of_dcgm(name: str, tmp_path: Path) -> None:
    text, expected = TABLES[name]
    assert outline("dcgm", text, tmp_path) == expected


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_of_dcgm(name: str, tmp_path: Path) -> None:
    document, status = DOCUMENTS[name]
    assert outline("dcgm", json.dumps(document), tmp_path)[0] == status


def test_an_error_number_may_be_an_object(tmp_path: Path) -> None:
    result = {"gpu_id": 1, "status": "Fail", "warnings": [{"warning": "w", "error_id": {"code": 52, "field_id": 150}}]}
    body = {"test_categories": [{"category": "Hardware", "tests": [{"name": "m", "results": [result]}]}]}
    found = outline("dcgm", json.dumps({"DCGM Diagnostic": body}), tmp_path)
    assert found == ("findings", [("gpu.dcgm.faulty_memory", "gpu-1", "fatal", "replace")])


@pytest.mark.parametrize("name", SMI)
def test_nvidia_smi(name: str, tmp_path: Path) -> None:
    text, expected = SMI[name]
    assert outline("nvidia-smi", text, tmp_path) == expected


DEVICES = "".join(
    f"#  Rank {n:2} Group  0 Pid  {4000 + n} on    n1 device {n:2} [0x18] NVIDIA H100 80GB HBM3\n" for n in range(8)
)
TABLE = f"""# nThread 1 nGpus 1 minBytes 1073741824 maxBytes 1073741824 step: 2(factor) warmup iters: 5 iters: 20
# Using devices
{DEVICES}#
#       size         count      type   redop    root     time   algbw   busbw #wrong     time   algbw   busbw #wrong
  1073741824     268435456     float     sum      -1   4040.1  265.77  SPEED       0   4041.5  265.68  SPEED       0
# Out of bounds values : 0 OK
# Avg bus bandwidth    : SPEED
"""


@pytest.mark.parametrize(
    ("speed", "expected"),
    [
        ("465.10", ("ok", [])),
        ("349.40", ("findings", [("nccl.slow", "n1", "warn", "human")])),
        ("210.00", ("findings", [("nccl.slow", "n1", "degraded", "reboot")])),
    ],
)
@pytest.mark.parametrize("form", ["plain", "srun --label", "a page that eats the mark"])
def test_nccl(form: str, speed: str, expected: Outline, tmp_path: Path) -> None:
    text = TABLE.replace("SPEED", speed)
    if form == "srun --label":
        text = "".join(f" 0: {line}\n" for line in text.splitlines())
    elif form == "a page that eats the mark":
        text = text.replace("\n#", "\n").removeprefix("#")
    assert outline("nccl", text, tmp_path, "p5.48xlarge") == expected
    assert outline("nccl", text, tmp_path, "x1.unheard") == ("ok", [])


def test_a_part_with_a_number_of_five_thousand_digits(tmp_path: Path) -> None:
    body = {"Overall Health": {"value": "Failure"}, "GPU": {"children": {"9" * 5000: {"value": "Failure"}}}}
    status, findings = outline("dcgm-health", json.dumps({"body": body}), tmp_path)
    assert status == "findings" and [severity for _, _, severity, _ in findings] == ["degraded"]
