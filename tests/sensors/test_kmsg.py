"""The kernel log: records, positions, FIFOs and files; one test reads the machine's own device."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewatch.errors import SensorError
from nodewatch.model.samples import KmsgSample
from nodewatch.sensors.kmsg import KernelLog, Position, parse_record


def texts(sample: KmsgSample) -> list[str]:
    return [record.text for record in sample.records]


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[tuple[KernelLog, int]]:
    path = tmp_path / "kmsg"
    os.mkfifo(path)
    log = KernelLog(path, boot_id="b1")
    log.open()
    writer = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    yield log, writer
    os.close(writer)
    log.close()


@pytest.mark.parametrize(
    ("line", "text", "sequence", "priority"),
    [
        ("6,339,5140900,-;NET: Registered protocol family 10", "NET: Registered protocol family 10", 339, 6),
        ("30,340,5690716,-;udevd[80]: starting version 181", "udevd[80]: starting version 181", 340, 6),
        ("4,1,2,-,caller=T12;a;b,c", "a;b,c", 1, 4),
        (r"4,1,2,c;tab\x09 and \x5c", "tab\t and \\", 1, 4),
        ("4,1,2,-;", "", 1, 4),
    ],
)
def test_records(line: str, text: str, sequence: int, priority: int) -> None:
    record = parse_record(line)
    assert record is not None
    assert (record.text, record.sequence, record.priority) == (text, sequence, priority)


@pytest.mark.parametrize(
    "line", ["", "hello", "4,1;x", "a,b,c,d;x", "4,1,2,-", " SUBSYSTEM=pci", "-1,2,3,-;x", "4,\u0661,2,-;x"]
)
def test_garbage_is_no_record(line: str) -> None:
    assert parse_record(line) is None


@given(st.text())
def test_no_text_raises(text: str) -> None:
    parse_record(text)


@given(st.binary(max_size=3000), st.lists(st.integers(1, 50), max_size=20))
def test_bytes_split_anywhere_never_raise_and_a_good_line_comes_through(
    tmp_path_factory: pytest.TempPathFactory, garbage: bytes, cuts: list[int]
) -> None:
    path = tmp_path_factory.mktemp("k") / "kmsg"
    os.mkfifo(path)
    log = KernelLog(path, boot_id="b1")
    log.open()
    writer = os.open(path, os.O_WRONLY)
    try:
        data = garbage + b"\n4,7,1,-;the good line\n"
        seen: list[str] = []
        while data:
            size = cuts.pop() if cuts else len(data)
            os.write(writer, data[:size])
            data = data[size:]
            seen += texts(log.read())
        assert seen[-1] == "the good line"
    finally:
        os.close(writer)
        log.close()


def test_a_line_split_over_reads_and_lines_that_continue(fifo: tuple[KernelLog, int]) -> None:
    log, writer = fifo
    os.write(writer, b"4,1,1,-;fir")
    assert texts(log.read()) == []
    os.write(writer, b"st\n SUBSYSTEM=pci\n DEVICE=+pci:0000\n4,2,2,-;sec")
    assert texts(log.read()) == ["first"]
    os.write(writer, b"ond\n")
    assert texts(log.read()) == ["second"]
    assert log.garbled == 0


def test_what_was_handed_out_before_goes_along(fifo: tuple[KernelLog, int]) -> None:
    log, writer = fifo
    os.write(writer, b"4,1,1,-;first\n")
    assert log.read().recent == ()
    os.write(writer, b"4,2,2,-;second\n")
    sample = log.read()
    assert texts(sample) == ["second"]
    assert [record.text for record in sample.recent] == ["first"]


def test_garbage_is_counted_and_skipped(fifo: tuple[KernelLog, int]) -> None:
    log, writer = fifo
    os.write(writer, b"\xff\x00garbage\n\n4,1,1,-;good\nmore garbage\n")
    sample = log.read()
    assert texts(sample) == ["good"]
    assert (sample.garbled, log.garbled) == (2, 2)


def test_a_line_without_end_does_not_grow_for_ever(fifo: tuple[KernelLog, int]) -> None:
    log, writer = fifo
    for _ in range(40):
        os.write(writer, b"x" * 8192)
        log.read()
    os.write(writer, b"\n4,1,1,-;good\n")
    assert texts(log.read()) == ["good"]
    assert log.garbled == 1


def test_the_descriptor_wakes_and_rests(fifo: tuple[KernelLog, int]) -> None:
    log, writer = fifo
    fd = log.fileno()
    assert fd is not None
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    assert poll.poll(0) == []
    os.write(writer, b"4,1,1,-;good\n")
    assert poll.poll(1000)
    log.read()
    assert poll.poll(0) == []


def test_a_writer_that_goes_does_not_make_the_fifo_spin(tmp_path: Path) -> None:
    path = tmp_path / "kmsg"
    os.mkfifo(path)
    log = KernelLog(path, boot_id="b1")
    log.open()
    os.close(os.open(path, os.O_WRONLY))
    poll = select.poll()
    assert log.fileno() is not None
    poll.register(log.fileno() or 0, select.POLLIN)
    assert poll.poll(50) == []
    log.close()


def test_a_file_is_read_on_from_where_it_was_left(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("4,1,1,-;one\n4,2,2,-;two\n4,3")
    log = KernelLog(path, boot_id="b1")
    assert texts(log.read()) == ["one", "two"]
    assert log.fileno() is None
    position = Position.from_json(log.position.to_json())
    log.close()
    with open(path, "a") as stream:
        stream.write(",3,-;three\n")
    again = KernelLog(path, boot_id="b1", position=position)
    assert texts(again.read()) == ["three"]
    again.close()
    other_boot = KernelLog(path, boot_id="b2", position=position)
    assert texts(other_boot.read()) == ["one", "two", "three"]
    other_boot.close()


def test_a_file_that_was_rotated_or_cut_is_read_from_its_start(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("4,1,1,-;one\n4,2,2,-;two\n")
    log = KernelLog(path, boot_id="b1")
    log.read()
    path.rename(tmp_path / "log.1")
    path.write_text("4,3,3,-;three\n")
    log.reopen_if_replaced()
    assert texts(log.read()) == ["three"]
    path.write_text("4,4,4,-;4\n")
    log.reopen_if_replaced()
    assert texts(log.read()) == ["4"]
    log.close()


def test_a_missing_source_is_one_sentence(tmp_path: Path) -> None:
    log = KernelLog(tmp_path / "nothing", boot_id="b1")
    with pytest.raises(SensorError, match=r"cannot be opened \(No such file or directory\): set kmsg in agent\.toml"):
        log.read()
    with pytest.raises(SensorError):
        log.reopen_if_replaced()
    (tmp_path / "nothing").write_text("4,1,1,-;one\n")
    log.reopen_if_replaced()
    assert texts(log.read()) == ["one"]


def test_a_directory_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SensorError, match="cannot be"):
        KernelLog(tmp_path, boot_id="b1").read()


@pytest.mark.skipif(not os.access("/dev/kmsg", os.R_OK | os.W_OK), reason="/dev/kmsg may not be used here")
def test_the_device_of_this_machine() -> None:
    device = Path("/dev/kmsg")
    log = KernelLog(device, boot_id="b1")
    while log.read().records:
        pass
    mark = f"nodewatch test {os.getpid()} {time.monotonic_ns()}"

    def write(text: str) -> None:
        fd = os.open(device, os.O_WRONLY)
        os.write(fd, f"<6>{text}\n".encode())
        os.close(fd)

    write(mark + " a")
    assert [text for text in texts(log.read()) if text.startswith(mark)] == [mark + " a"]
    position = log.position
    log.close()
    # Written while nobody reads: the agent that starts again must see it, and not the line before it.
    write(mark + " b")
    again = KernelLog(device, boot_id="b1", position=position)
    assert [text for text in texts(again.read()) if text.startswith(mark)] == [mark + " b"]
    again.close()


@pytest.mark.skipif(not os.access("/dev/kmsg", os.R_OK | os.W_OK), reason="/dev/kmsg may not be used here")
def test_the_first_look_at_the_device_leaves_out_what_is_old() -> None:
    far_future = KernelLog(Path("/dev/kmsg"), boot_id="b1", lookback_s=10.0, clock=lambda: time.monotonic() + 1e6)
    assert far_future.read().records == ()
    # The old lines count as read all the same.
    assert far_future.position.sequence is not None
    far_future.close()
