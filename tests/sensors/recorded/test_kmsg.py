"""Recorded kernel logs: every form that dmesg, the journal and syslog write, and what is none of them."""

from __future__ import annotations

import contextlib
import gzip
import json
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewatch.errors import SensorError
from nodewatch.model.samples import KmsgRecord
from nodewatch.sensors.recorded._api import Recording
from nodewatch.sensors.recorded.kmsg import load

XID = "NVRM: Xid (PCI:0000:53:00): 79, pid=1, GPU has fallen off the bus."


def records(path: Path) -> list[KmsgRecord]:
    return [record for sample in load(Recording(path=path)) for record in sample.records]


def read(tmp_path: Path, data: bytes | str) -> list[KmsgRecord]:
    path = tmp_path / "log"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return records(path)


@pytest.mark.parametrize(
    ("line", "since_boot_us", "stamp"),
    [
        (f"4,7,1500000,-;{XID}", 1_500_000, ""),
        (f"4,7,1500000,-,caller=T1;{XID}", 1_500_000, ""),
        (f"[  123.456789] {XID}", 123_456_789, ""),
        (f"[  123.456789][    T1] {XID}", 123_456_789, ""),
        (f"[  123.456789 <    0.000012>] {XID}", 123_456_789, ""),
        (f"<4>[  123.456789] {XID}", 123_456_789, ""),
        (f"kern  :warn  : [  123.456789] {XID}", 123_456_789, ""),
        (f"[Thu Oct  1 10:00:00 2026] {XID}", None, "Thu Oct  1 10:00:00 2026"),
        (f"kern  :err   : [Thu Oct  1 10:00:00 2026] {XID}", None, "Thu Oct  1 10:00:00 2026"),
        (f"2026-10-01T10:00:00,123456+00:00 {XID}", None, "2026-10-01T10:00:00,123456+00:00"),
        (f"<4>{XID}", None, ""),
        (f"kern  :warn  : {XID}", None, ""),
        (f"Oct  1 10:00:00 node-17 kernel: {XID}", None, "Oct  1 10:00:00"),
        (f"Oct  1 10:00:00 node-17 kernel: [   12.000001] {XID}", 12_000_001, ""),
        (f"Oct 01 10:00:00.123456 node-17 kernel: {XID}", None, "Oct 01 10:00:00.123456"),
        (f"Oct 01 10:00:00 kernel: {XID}", None, "Oct 01 10:00:00"),
        (f"2026-10-01T10:00:00+0000 node-17 kernel: {XID}", None, "2026-10-01T10:00:00+0000"),
        (f"2026-10-01T10:00:00.123456+00:00 node-17 kernel: {XID}", None, "2026-10-01T10:00:00.123456+00:00"),
        (f"Thu 2026-10-01 10:00:00 UTC node-17 kernel: {XID}", None, "Thu 2026-10-01 10:00:00 UTC"),
        (f"[  123.456789] node-17 kernel: {XID}", 123_456_789, ""),
        (f"<4>1 2026-10-01T10:00:00.003Z node-17 kernel - - - {XID}", None, "2026-10-01T10:00:00.003Z"),
        (f"<4>Oct  1 10:00:00 node-17 kernel: {XID}", None, "Oct  1 10:00:00"),
        (f"[171657.328] {XID}", 171657_328_000, ""),
        (f"\x1b[32m[  123.456789] \x1b[0m\x1b[33mNVRM\x1b[0m{XID[4:]}", 123_456_789, ""),
        (f"2026-10-01T10:00:00.123456789Z stdout F [  123.456789] {XID}", 123_456_789, ""),
        (f"2026-10-01T10:00:00Z [  123.456789] {XID}", 123_456_789, ""),
        (f"2026-10-01T10:00:00.5Z 4,7,1500000,-;{XID}", 1_500_000, ""),
        (f"1790848800.123456 node-17 kernel: {XID}", None, "1790848800.123456"),
        (f"[  +0.000123] {XID}", None, "0.000123"),
        (f"[Oct 1 10:00] {XID}", None, "24228000.000000"),
        (json.dumps({"log": f"[  123.456789] {XID}\n", "stream": "stdout"}), 123_456_789, ""),
        (json.dumps({"SYSLOG_IDENTIFIER": "kernel", "MESSAGE": XID}), None, ""),
        (
            json.dumps({"_TRANSPORT": "kernel", "MESSAGE": XID, "__MONOTONIC_TIMESTAMP": "1500000"}),
            1_500_000,
            "",
        ),
        (json.dumps({"_TRANSPORT": "kernel", "MESSAGE": list(XID.encode())}), None, ""),
        (XID, None, ""),
    ],
)
@pytest.mark.parametrize("ending", ["\n", "\r\n", ""])
def test_every_form_of_a_line(tmp_path: Path, line: str, since_boot_us: int | None, stamp: str, ending: str) -> None:
    (record,) = read(tmp_path, line + ending)
    assert (record.text, record.since_boot_us, record.stamp) == (XID, since_boot_us, stamp)


def test_only_the_kernel_is_quoted(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        f"Oct  1 10:00:00 node-17 python3[12]: last week: {XID}\n"
        f"Oct  1 10:00:00 node-17 monitor: kernel: {XID}\n"
        "Oct  1 10:00:01 node-17 kernel: usb 1-1: new device\n"
        f"[  123.456789] node-17 python3[12]: {XID}\n"
        f"2026-10-01T10:00:00+0000 node-17 app[3]: {XID}\n"
        "Oct  1 10:00:02 node-17 app[3]: of last week:\n"
        f"    {XID}\n"
        f"2026-10-01T10:00:00.123456789Z stdout F {XID}\n"
        f"1790848800.123456 node-17 app[3]: {XID}\n"
        + json.dumps({"_TRANSPORT": "stdout", "MESSAGE": XID})
        + "\n"
        + json.dumps({"_TRANSPORT": "syslog", "SYSLOG_IDENTIFIER": "kernel", "MESSAGE": XID})
        + "\n"
        + json.dumps({"log": XID, "stream": "stdout"})
        + "\n",
    )
    assert [record.text for record in found] == ["usb 1-1: new device"]


def test_continuations_and_markers_are_no_records(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        "-- Boot 5b0b0a --\n6,1,1,-;first\n SUBSYSTEM=pci\n DEVICE=+pci:0000:53:00.0\n\n6,2,2,-;second \\xc3\\xa9\n",
    )
    assert [record.text for record in found] == ["first", "second Ã©"]


def test_a_message_of_the_driver_goes_on_in_the_next_lines(tmp_path: Path) -> None:
    found = read(
        tmp_path, "[    1.500000] NVRM: The NVIDIA GPU 0000:06:00.0\n               NVRM: fallen off the bus and\n"
    )
    assert [(record.text, record.since_boot_us) for record in found] == [
        ("NVRM: The NVIDIA GPU 0000:06:00.0", 1_500_000),
        ("NVRM: fallen off the bus and", 1_500_000),
    ]


@pytest.mark.parametrize(
    "first", ["[    0.000000] Linux version 6.1.0\n", "-- Boot 5b0b0a7c1f6e --\n", "-- Reboot --\n"]
)
def test_each_boot_is_a_sample_that_knows_nothing_of_the_one_before(tmp_path: Path, first: str) -> None:
    path = tmp_path / "log"
    path.write_text(f"[  100.000000] {XID}\n{first}[  101.000000] usb 1-1: new device\n")
    before, after = load(Recording(path=path))
    assert ([record.text for record in before.records], before.recent) == ([XID], ())
    assert (after.records[-1].text, after.recent) == ("usb 1-1: new device", ())


def test_the_first_boot_begins_nothing(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text(f"[    0.000000] Linux version 6.1.0\n[    0.000000] Linux version 6.1.0\n[    1.000000] {XID}\n")
    assert len(list(load(Recording(path=path)))) == 1


def test_an_empty_log_is_a_log(tmp_path: Path) -> None:
    assert read(tmp_path, "") == []
    assert read(tmp_path, "-- No entries --\n") == []


def test_text_without_times_when_it_is_dmesg(tmp_path: Path) -> None:
    lines = ["Linux version 6.1.0", "BIOS-provided physical RAM map:", "usb 1-1: new device", XID, " </TASK>"]
    assert [record.text for record in read(tmp_path, "\n".join(lines))] == lines[:4]


def test_a_header_before_the_log(tmp_path: Path) -> None:
    assert [r.text for r in read(tmp_path, f"$ dmesg\n[    1.000000] {XID}\n")] == ["$ dmesg", XID]


@pytest.mark.parametrize(
    "data",
    [
        b'{\n  "DCGM Diagnostic": {\n    "x": 1\n  }\n}\n',
        b'<?xml version="1.0" ?>\n<nvidia_smi_log>\n</nvidia_smi_log>\n',
        b"# A page\n\nOnce we saw this:\n\n    NVRM: Xid\n\nand then nothing happened for years.\nNever again.\n",
        b"\n\n \n",
        bytes(range(256)) * 400,
        gzip.compress(XID.encode() * 1000),
        b"bytes  #sent  #ack\n64  10  =10\n",
        b"Oct  1 10:00:00 n1 sshd[12]: Accepted publickey\n",
        f"2026-10-01 12:00:00,123 INFO: step 3 loss 2.1 {XID}\n".encode(),
        b"\0" * 5000,
    ],
)
def test_what_is_no_kernel_log(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "log"
    path.write_bytes(data)
    with pytest.raises(SensorError, match=r"kernel|no text"):
        records(path)


def test_damage_does_not_hide_the_rest(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        b"[    1.000000] before\n\xff\xfe\xfd\xfc\xfb\n"
        + b"\0" * 4096
        + f"[    2.000000] {XID}\n".encode()
        + b"[    3.000000] na\xefve\n",
    )
    assert [record.text for record in found] == ["before", XID, "na\ufffdve"]


def test_a_line_without_end_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("wb") as stream:
        stream.write(f"[    1.000000] {XID}\n[    2.000000] long ".encode())
        for _ in range(64):
            stream.write(b"x" * (1 << 20))
        stream.write(b"\n[    3.000000] after\n")
    tracemalloc.start()
    found = records(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [record.text[:5] for record in found] == [XID[:5], "long ", "after"]
    assert len(found[1].text) < 10_000
    assert peak < 16 << 20


def test_a_long_log_is_handed_over_in_parts_that_know_what_came_before(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("".join(f"6,{n},{n},-;line {n} {'x' * 60}\n" for n in range(60_000)))
    samples = list(load(Recording(path=path)))
    assert len(samples) > 2
    assert sum(len(sample.records) for sample in samples) == 60_000
    assert samples[1].recent == samples[0].records[-200:]


def test_one_sentence_for_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SensorError, match="No such file"):
        records(tmp_path / "nothing")
    with pytest.raises(SensorError, match="Is a directory"):
        records(tmp_path)


@given(st.binary(max_size=2000))
def test_bytes_never_raise_anything_else(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    with contextlib.suppress(SensorError):
        read(tmp_path_factory.mktemp("k"), data)


@given(st.lists(st.text(alphabet='<>[]0123456789.,;:-TZ kernOctn1{}"\0\n', max_size=60), max_size=20))
def test_near_misses_never_raise_anything_else(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    with contextlib.suppress(SensorError):
        read(tmp_path_factory.mktemp("k"), "\n".join(lines))
