"""Recordings of the kernel log, the fabric, the file system and the cloud, damaged in every way that a disk, a pipe or a
hurried person damages them.

Whatever is read ends in a verdict and never in an exception; a document that was cut off is never said to be well. A kernel log
cannot tell that it was cut off, so that is not asked of it.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nodewatch.cli.replay import judge

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A recording of a healthy machine. From `tail` on, what is cut off cannot be missed or takes nothing away."""

    sensor: str
    text: str
    instance_type: str = ""
    tail: str = ""
    ends: tuple[int, ...] = ()
    """Numbers of lines that the tool also writes when it is asked for less: a cut in the last of them proves nothing."""

    @property
    def told(self) -> int:
        """Up to which cut the document must be seen to lack something."""
        return self.text.rindex(self.tail) + 1 if self.tail else len(self.text.rstrip())


def _status(**other: object) -> dict[str, object]:
    passed = {"Details": [{"Name": "reachability", "Status": "passed"}], "Status": "ok"}
    return {
        "InstanceId": "i-0a1b2c3d4e5f60718",
        "InstanceState": {"Code": 16, "Name": "running"},
        "InstanceStatus": passed,
        "SystemStatus": passed,
        "AttachedEbsStatus": passed,
        **other,
    }


_DONE = {
    "Code": "instance-stop",
    "Description": "[Completed] It ran on degraded hardware",
    "NotBefore": "2026-01-02T00:00:00Z",
}
_BLOCK = (
    "provider: efa\n    fabric: efa\n    domain: rdmap{}s0-rdm\n    version: 201.0\n"
    "    type: FI_EP_RDM\n    protocol: FI_PROTO_EFA\n"
)
_ROWS = "".join(
    f"{size:8}10      =10     {total:8} 0.00s {speed:10} {late:10}       0.01\n"
    for size, total, speed, late in (
        ("64", "1.2k", "1.66", "38.50"),
        ("256", "5k", "14.80", "17.30"),
        ("1k", "20k", "57.21", "17.90"),
        ("4k", "80k", "215.58", "19.00"),
        ("64k", "1.2m", "1066.96", "61.42"),
        ("1m", "20m", "2359.37", "444.42"),
    )
)
_NEURON_RULE = "+--------+--------+--------+---------+\n"
_NEURON_LS = (
    f"instance-type: trn1.32xlarge\n{_NEURON_RULE}"
    "| NEURON | NEURON | NEURON |   PCI   |\n| DEVICE | CORES  | MEMORY |   BDF   |\n"
    + _NEURON_RULE
    + "".join(f"| {n:<6} | 2      | 32 GB  | {n + 16:02x}:1c.0 |\n" for n in range(16))
    + _NEURON_RULE
)
_MONITOR: dict[str, Any] = {
    "neuron_runtime_data": [
        {"pid": 7, "report": {"execution_stats": {"error_summary": {"numerical": 3, "hardware": 0}}}}
    ],
    "system_data": {
        "neuron_hw_counters": {
            "neuron_devices": [
                {"neuron_device_index": n, "mem_ecc_corrected": 4, "mem_ecc_uncorrected": 0, "sram_ecc_uncorrected": 0}
                for n in range(16)
            ],
            "error": "",
        }
    },
    "instance_info": {"instance_type": "trn1.32xlarge"},
    "neuron_hardware_info": {"neuron_device_count": 16, "error": ""},
}
_DF = (
    "UUID                       bytes        Used   Available Use% Mounted on\n"
    "fsx1-MDT0000_UUID          34.5G        6.9M       34.4G   1% /fsx[MDT:0]\n"
    "fsx1-OST0000_UUID           1.1T      202.4G      938.1G  18% /fsx[OST:0]\n\n"
    "filesystem_summary:         1.1T      202.4G      938.1G  18% /fsx\n"
)
_IMPORT = (
    "osc.fsx1-OST0000-osc-ffff9a3c41d2e800.import=\nimport:\n    name: fsx1-OST0000-osc-ffff9a3c41d2e800\n"
    "    target: fsx1-OST0000_UUID\n    state: FULL\n    connect_flags: [ write_grant ]\n"
)
_DMESG = (Path(__file__).parent / "kmsg" / "healthy.dmesg").read_text(encoding="utf-8")

DOCUMENTS = {
    "kmsg": Document(sensor="kmsg", text=_DMESG),
    "fi_info": Document(
        sensor="fi_info",
        text="".join(_BLOCK.format(79 + n) for n in range(32)),
        instance_type="p5.48xlarge",
        tail="FI_PROTO",
    ),
    "fi_pingpong": Document(
        sensor="fi_pingpong",
        text="bytes   #sent   #ack     total       time     MB/sec    usec/xfer   Mxfers/sec\n" + _ROWS,
        tail="0.01",
        ends=(2, 5),
    ),
    "lfs df": Document(sensor="lustre", text=_DF, tail="/fsx"),
    "lfs check": Document(sensor="lustre", text="fsx1-OST0000-osc-ffff9a3c41d2e800 active.\n", tail="e."),
    "import": Document(sensor="lustre", text=_IMPORT, tail="ULL"),
    "ec2-status": Document(
        sensor="ec2-status", text=json.dumps({"InstanceStatuses": [_status(Events=[_DONE])]}, indent=1)
    ),
    "neuron-ls": Document(sensor="neuron", text=_NEURON_LS, tail="\n+"),
    "neuron-ls -j": Document(
        sensor="neuron",
        text=json.dumps([{"neuron_device": n, "bdf": f"{n:02x}:1c.0", "neuron_processes": []} for n in range(16)]),
        instance_type="trn1.32xlarge",
    ),
    "neuron-monitor": Document(sensor="neuron", text=json.dumps(_MONITOR)),
}
EACH = pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS)


def verdict(path: Path, document: Document, data: bytes) -> dict[str, Any]:
    """What is said of `data`. Fails where a parser or a check raised anything but its own kind of error."""
    path.write_bytes(data)
    return sound(judge(document.sensor, document.instance_type, path))


def sound(found: dict[str, Any]) -> dict[str, Any]:
    assert found["status"] in ("ok", "findings", "unknown")
    assert "please report it" not in (found["error"] or ""), found["error"]
    assert "the check failed with" not in (found["error"] or ""), found["error"]
    assert found["status"] != "unknown" or found["error"]
    return found


@EACH
@pytest.mark.parametrize(
    "written",
    [
        lambda text: text.encode(),
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: text.rstrip().encode(),
        lambda text: ("\ufeff" + text).encode() if not text.startswith("[") or text[1] == "{" else text.encode(),
    ],
    ids=["as it is", "of Windows", "stripped", "with a mark of order"],
)
def test_a_healthy_machine_is_well_however_it_was_written(
    tmp_path: Path, document: Document, written: Callable[[str], bytes]
) -> None:
    found = verdict(tmp_path / "recording", document, written(document.text))
    assert [f for f in found["findings"] if f["severity"] in ("degraded", "fatal")] == []
    assert found["status"] == "ok"


@EACH
@QUICK
@given(data=st.data())
def test_what_was_cut_off_is_never_well(tmp_path: Path, document: Document, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, document.told - 1))
    if len(document.text[:cut].rstrip().split("\n")) in document.ends:
        return
    found = verdict(tmp_path / "recording", document, document.text[:cut].encode())
    assert document.sensor == "kmsg" or found["status"] != "ok"


def flip(rng: random.Random, data: bytearray) -> None:
    for _ in range(rng.randint(1, 8)):
        if data:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def swap(rng: random.Random, data: bytearray) -> None:
    lines = bytes(data).split(b"\n")
    for _ in range(rng.randint(1, 5)):
        a, b = rng.randrange(len(lines)), rng.randrange(len(lines))
        lines[a], lines[b] = lines[b], lines[a]
    data[:] = b"\n".join(lines)


def double(rng: random.Random, data: bytearray) -> None:
    a, b = sorted((rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)))
    data[b:b] = data[a:b] * rng.randint(1, 3)


def drop(rng: random.Random, data: bytearray) -> None:
    a = rng.randrange(len(data) + 1)
    del data[a : a + rng.randint(1, 400)]


def garbage(rng: random.Random, data: bytearray) -> None:
    at = rng.randrange(len(data) + 1)
    data[at:at] = rng.choice(
        (b"\xff\xfe\x00", b"\0" * 64, rng.randbytes(40), "\u202e\u2028é".encode(), b"\x1b[31m", b"9" * 400)
    )


def odd_numbers(rng: random.Random, data: bytearray) -> None:
    odd = rng.choice(
        (b"-1", b"1e999", b"NaN", b"18446744073709551616", b"null", b"{}", b"[]", b'""', b"0x", b"\xd9\xa3")
    )
    digits = [n for n, char in enumerate(data) if chr(char).isdigit()]
    if digits:
        at = rng.choice(digits)
        data[at : at + 1] = odd


MUTATIONS = (flip, swap, double, drop, garbage, odd_numbers)


@EACH
def test_damage_of_all_kinds_ends_in_a_verdict(tmp_path: Path, document: Document) -> None:
    rng = random.Random(document.sensor)
    for _ in range(120):
        data = bytearray(document.text.encode())
        for mutate in rng.choices(MUTATIONS, k=rng.randint(1, 4)):
            mutate(rng, data)
        verdict(tmp_path / "recording", document, bytes(data))


@EACH
@pytest.mark.parametrize("char", [b"x", b"9", b"[", b'{"a":', b" ", b"-", b"|", b"\xff", b"\0"])
def test_a_line_of_a_megabyte(tmp_path: Path, document: Document, char: bytes) -> None:
    long = char * ((1 << 20) // len(char))
    alone = verdict(tmp_path / "recording", document, long)
    assert alone["status"] != "ok"
    verdict(tmp_path / "recording", document, document.text.encode() + long)


@EACH
@QUICK
@given(data=st.binary(max_size=300))
def test_any_bytes_end_in_a_verdict(tmp_path: Path, document: Document, data: bytes) -> None:
    found = verdict(tmp_path / "recording", document, data)
    assert found["status"] != "ok" or (document.sensor == "kmsg" and not data.strip(b"\0\r\n\t ")) or b"healthy" in data


def fabric(root: Path, names: list[str], counters: str) -> Path:
    for name in names:
        port = root / "infiniband" / name / "ports" / "1"
        (port / counters).mkdir(parents=True)
        for file, text in (
            ("state", "4: ACTIVE"),
            ("phys_state", "5: LinkUp"),
            ("rate", "100 Gb/sec (4X EDR)"),
            ("link_layer", "InfiniBand"),
        ):
            (port / file).write_text(text + "\n")
        for file in ("rx_drops", "cmds_err") if counters == "hw_counters" else ("symbol_error", "link_downed"):
            (port / counters / file).write_text("0\n")
        (root / "infiniband" / name / "node_guid").write_text("0000:0000:0000:0000\n")
    return root


def neuron(root: Path) -> Path:
    for number in range(16):
        place = root / "neuron_device" / f"neuron{number}" / "stats" / "hardware"
        for name in ("mem_ecc_uncorrected", "sram_ecc_uncorrected"):
            (place / name).mkdir(parents=True)
            (place / name / "total").write_text("0\n")
    return root


TREES: dict[str, tuple[str, str, Callable[[Path], Path]]] = {
    "efa": (
        "efa",
        "p4d.24xlarge",
        lambda root: fabric(root, [f"rdmap{n}s27" for n in (16, 32, 144, 160)], "hw_counters"),
    ),
    "ib": ("ib", "", lambda root: fabric(root, [f"mlx5_{n}" for n in range(4)], "counters")),
    "neuron": ("neuron", "trn1.32xlarge", neuron),
}
EACH_TREE = pytest.mark.parametrize(("sensor", "instance_type", "make"), TREES.values(), ids=TREES)


def spoil(rng: random.Random, root: Path) -> None:
    """Put something else in the place of one file or directory."""
    victims = sorted(place for place in root.rglob("*") if not place.is_symlink())
    if not victims:
        return
    victim = rng.choice(victims)
    moved = root.parent / f"moved{rng.random()}"
    victim.rename(moved)
    kind = rng.randrange(8)
    if kind == 0:
        victim.symlink_to("../" * 20 + "nowhere")
    elif kind == 1:
        victim.symlink_to(victim)
    elif kind == 2:
        os.mkfifo(victim)
    elif kind == 3:
        victim.mkdir()
    elif kind == 4:
        victim.write_bytes(rng.choice((b"", b"\xff\xfe", b"N/A (no PMA)\n", b"-1\n", b"9" * 100_000, b"1: DOWN\n")))
    elif kind == 5:
        victim.symlink_to(root)
    elif kind == 6 and moved.is_file():
        victim.write_bytes(moved.read_bytes())
        victim.chmod(0)


@EACH_TREE
def test_a_tree_with_odd_missing_and_endless_files_ends_in_a_verdict(
    tmp_path: Path, sensor: str, instance_type: str, make: Callable[[Path], Path]
) -> None:
    well = make(tmp_path / "well")
    assert sound(judge(sensor, instance_type, well))["status"] == "ok"
    rng = random.Random(sensor)
    for number in range(25):
        root = make(tmp_path / f"tree{number}")
        for _ in range(rng.randint(1, 4)):
            spoil(rng, root)
        sound(judge(sensor, instance_type, root))
        sound(judge(sensor, instance_type, root, previous=well, interval_s=60.0))
        sound(judge(sensor, instance_type, well, previous=root, interval_s=60.0))


@EACH_TREE
def test_a_tree_that_lacks_a_device_or_all_it_says_is_never_well(
    tmp_path: Path, sensor: str, instance_type: str, make: Callable[[Path], Path]
) -> None:
    well, less = make(tmp_path / "well"), make(tmp_path / "less")
    (first, *_) = sorted(next(place for place in less.iterdir() if place.is_dir()).iterdir())
    first.rename(tmp_path / "gone")
    assert sound(judge(sensor, instance_type, less, previous=well, interval_s=60.0))["status"] == "findings"
    silent = make(tmp_path / "silent")
    for file in silent.rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    assert sound(judge(sensor, instance_type, silent))["status"] == "unknown"
