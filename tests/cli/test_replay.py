"""`nodewatch replay` as a process: one JSON document, three exit codes, and never a traceback."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodewatch.cli.replay import judge

XID_79 = "NVRM: Xid (PCI:0000:53:00): 79, pid=1, GPU has fallen off the bus."
XID_31 = "NVRM: Xid (PCI:0000:53:00): 31, pid=1, name=python3, MMU Fault"
OOM = "Out of memory: Killed process 811 (python3) total-vm:1kB"


RECORDED = Path(__file__).resolve().parents[1] / "sensors" / "recorded" / "kmsg"


def replay(*arguments: str | Path, stdin: bytes = b"") -> tuple[int, dict[str, Any]]:
    argv = [sys.executable, "-m", "nodewatch.cli", "replay", *map(str, arguments)]
    done = subprocess.run(argv, input=stdin, capture_output=True, timeout=60, check=False)
    assert done.stderr == b""
    document = json.loads(done.stdout)
    assert list(document) == ["sensor", "status", "findings", "error"]
    return done.returncode, document


def log(*lines: str) -> bytes:
    return "".join(f"[{n:6d}.000000] {line}\n" for n, line in enumerate(lines)).encode()


def test_findings_from_standard_input() -> None:
    code, document = replay("--sensor", "kmsg", "-", stdin=log("usb 1-1: new device", XID_79))
    assert (code, document["status"], document["error"]) == (1, "findings", None)
    (finding,) = document["findings"]
    assert {key: finding[key] for key in ("fault", "subject", "severity", "remedy")} == {
        "fault": "gpu.xid.79",
        "subject": "0000:53:00",
        "severity": "fatal",
        "remedy": "reboot",
    }
    assert finding["evidence"]["line"] == XID_79


def test_a_healthy_machine_is_ok_whatever_its_log_mentions() -> None:
    code, document = replay("--sensor", "kmsg", RECORDED / "healthy.dmesg")
    assert (code, document["status"]) == (0, "ok")
    assert {finding["severity"] for finding in document["findings"]} == {"info"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("lost-gpu.kmsg", {("gpu.xid.79", "fatal"), ("gpu.xid.154", "fatal"), ("gpu.xid.45", "info")}),
        (
            "nvswitch.journal",
            {
                ("gpu.sxid.20034", "fatal"),
                ("gpu.xid.74", "degraded"),
                ("gpu.xid.45", "info"),
                ("gpu.sxid.12028", "warn"),
            },
        ),
        (
            "dying-disk.syslog",
            {
                ("host.nvme_timeout", "warn"),
                ("host.nvme_down", "warn"),
                ("host.nvme_lost", "degraded"),
                ("host.disk_io_error", "degraded"),
                ("host.filesystem_error", "warn"),
                ("host.filesystem_readonly", "degraded"),
            },
        ),
    ],
)
def test_logs_of_broken_machines(name: str, expected: set[tuple[str, str]]) -> None:
    code, document = replay("--sensor", "kmsg", RECORDED / name)
    assert (code, document["status"], document["error"]) == (1, "findings", None)
    assert {(finding["fault"], finding["severity"]) for finding in document["findings"]} == expected


def test_nothing_wrong(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(log("usb 1-1: new device"))
    assert replay("--sensor", "kmsg", tmp_path / "log") == (
        0,
        {"sensor": "kmsg", "status": "ok", "findings": [], "error": None},
    )


def test_information_alone_is_ok_and_listed(tmp_path: Path) -> None:
    code, document = replay("--sensor", "kmsg", "-", stdin=log(XID_31))
    assert (code, document["status"]) == (0, "ok")
    assert [finding["severity"] for finding in document["findings"]] == ["info"]
    code, document = replay("--sensor", "kmsg", "-", stdin=log(XID_31, OOM))
    assert (code, document["status"]) == (1, "findings")
    assert [finding["severity"] for finding in document["findings"]] == ["warn", "info"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--sensor", "nothing", "/dev/null"), "no sensor is called 'nothing': use one of"),
        (("--sensor", "kmsg", "/does/not/exist"), "No such file or directory"),
        (("--sensor", "kmsg", "/proc"), "Is a directory"),
        (("--sensor", "kmsg", "--previous", "/dev/null", "/dev/null"), "--previous and --interval go together"),
        (("--sensor", "kmsg", "--previous", "/dev/null", "--interval", "nan", "/dev/null"), "above 0"),
    ],
)
def test_what_cannot_be_evaluated(arguments: tuple[str, ...], says: str) -> None:
    code, document = replay(*arguments)
    assert (code, document["status"], document["findings"]) == (2, "unknown", [])
    assert says in document["error"]
    assert "\n" not in document["error"]


def test_what_is_no_recording_of_the_sensor() -> None:
    code, document = replay("--sensor", "kmsg", "-", stdin=b'{"DCGM Diagnostic": {}}\n')
    assert (code, document["status"]) == (2, "unknown")
    assert document["error"].startswith("standard input is no kernel log")


def test_damage_leaves_a_fault_that_was_seen(tmp_path: Path) -> None:
    rubbish = b"\xff\xfe\xfd\xfc\n" * 50
    path = tmp_path / "log"
    path.write_bytes(rubbish + log(XID_79) + rubbish)
    document = judge("kmsg", "", path)
    assert document["status"] == "findings"
    assert "no text" in document["error"]
    path.write_bytes(rubbish + log(OOM) + rubbish)
    document = judge("kmsg", "", path)
    assert (document["status"], len(document["findings"])) == ("unknown", 1)


def test_the_last_line_counts_and_the_same_fault_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("wb") as stream:
        stream.write(log(OOM))
        stream.write(log(*["usb 1-1: new device " + "x" * 80] * 60_000))
        stream.write(log(OOM, OOM, XID_79))
    document = judge("kmsg", "", path)
    assert [(f["fault"], f["evidence"].get("count", 1)) for f in document["findings"]] == [
        ("gpu.xid.79", 1),
        ("host.oom", 3),
    ]


def test_a_hundred_megabytes_would_not_be_held_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "log"
    block = log(*["EXT4-fs (nvme0n1p1): mounted filesystem with ordered data mode. Quota mode: none."] * 10_000)
    with path.open("wb") as stream:
        for _ in range(20):
            stream.write(block)
    script = (
        # Not ru_maxrss: a process that was just forked inherits the size of the one that runs the tests.
        "import re, sys; from pathlib import Path; from nodewatch.cli.replay import judge;"
        "print(judge('kmsg', '', Path(sys.argv[1]))['status'],"
        "re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1])"
    )
    done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, timeout=60, check=True)
    status, kilobytes = done.stdout.split()
    assert status == "ok"
    assert int(kilobytes) < 100_000


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=500))
def test_no_bytes_raise_and_none_are_fine_by_chance(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("r") / "log"
    path.write_bytes(data)
    document = judge("kmsg", "", path)
    assert document["status"] in ("ok", "unknown", "findings")
    if data and not any(0x20 < byte < 0x7F for byte in data):
        assert document["status"] == "unknown"
