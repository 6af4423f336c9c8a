"""Names of the machine and of its boot."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nodewatch.errors import SensorError
from nodewatch.sensors import machine


def test_the_boot_of_this_machine() -> None:
    path = Path("/proc/sys/kernel/random/boot_id")
    name = machine.boot_id(path)
    assert name.startswith(path.read_text().strip() + "-")
    assert machine.boot_id(path) == name


def test_machines_that_share_a_kernel_have_boots_of_their_own(tmp_path: Path) -> None:
    kernel = tmp_path / "boot_id"
    kernel.write_text("c0ffee\n")
    fields = " ".join(["S"] + ["0"] * 18)
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text(f"1 (system d) :)) {fields} 1234 0 0\n")
    two.write_text(f"1 (systemd) {fields} 99 0 0\n")
    assert machine.boot_id(kernel, init_stat=one) == "c0ffee-1234"
    assert machine.boot_id(kernel, init_stat=two) == "c0ffee-99"


@pytest.mark.parametrize("stat", ["", "1 (init)", "1 (init) S x"])
def test_no_name_is_one_sentence(tmp_path: Path, stat: str) -> None:
    (tmp_path / "boot_id").write_text("x")
    (tmp_path / "stat").write_text(stat)
    with pytest.raises(SensorError, match="set boot_id_file"):
        machine.boot_id(tmp_path / "boot_id", init_stat=tmp_path / "stat")
    with pytest.raises(SensorError):
        machine.boot_id(tmp_path / "nothing")


def test_first_line(tmp_path: Path) -> None:
    (tmp_path / "tag").write_bytes(b" i-0123\nmore")
    (tmp_path / "empty").write_bytes(b"")
    assert machine.first_line(tmp_path / "tag") == "i-0123"
    assert machine.first_line(tmp_path / "empty") == ""
    assert machine.first_line(tmp_path / "nothing") == ""


def test_node_name() -> None:
    assert machine.node_name() == os.uname().nodename.split(".")[0]
