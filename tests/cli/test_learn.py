"""`nodewatch learn` on a tree like /sys: the row, the file, the comparison with the table, the floor of a recording."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nodewatch.cli.learn import row_of, with_floor
from nodewatch.config.instance_types import read_learnt
from nodewatch.errors import SensorError
from nodewatch.knowledge.instance_types import InstanceType
from nodewatch.sensors.inventory import Inventory

SEEN = Inventory(
    instance_type="p9.48xlarge",
    gpus=8,
    gpu="NVIDIA H900",
    nvlinks_per_gpu=18,
    gpu_memory_mib=183359,
    efa_devices=0,
    neuron_devices=0,
    vcpus=192,
    memory_gib=2048,
)
HEAD = "# nThread 1 nGpus {ranks} minBytes 8 maxBytes 17179869184 step: 2(factor) iters: 20\n#\n# Using devices\n"
COLUMNS = """#
#                                                              out-of-place                       in-place
#       size         count      type   redop    root     time   algbw   busbw #wrong     time   algbw   busbw #wrong
#        (B)    (elements)                               (us)  (GB/s)  (GB/s)            (us)  (GB/s)  (GB/s)
"""


def machine(root: Path, kind: str, cpus: str = "0-191") -> Path:
    for name, text in {
        "sys/devices/virtual/dmi/id/product_name": kind,
        "sys/devices/system/cpu/present": cpus,
        "proc/meminfo": "MemTotal: 530000000 kB\n",
        **{f"sys/devices/virtual/neuron_device/neuron{n}/core_count": "2" for n in range(16)},
        **{f"sys/class/infiniband/rdmap{n}/device/vendor": "0x1d0f" for n in range(8)},
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def learn(*arguments: object) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "nodewatch.cli", "learn", *map(str, arguments)]
    return subprocess.run(argv, capture_output=True, text=True, check=False, env={**os.environ, "TZ": "UTC"})


def recording(
    ranks: int = 8, rows: str = "", tail: str = "# Out of bounds values : 0 OK\n# Avg bus bandwidth    : 1.0\n"
) -> str:
    devices = "".join(f"#  Rank {n:2} Group  0 Pid 100 on n1 device {n:2} [0x53] NVIDIA H900\n" for n in range(ranks))
    return f"# Collective test starting: all_reduce_perf\n{HEAD.format(ranks=ranks)}{devices}{COLUMNS}{rows}{tail}"


def row(size: int, speed: float, wrong: int = 0) -> str:
    out, back = (f"100.0  200.0  {value:.2f}" for value in (speed, speed + 1))
    return f"{size:12} {size // 4:13}     float     sum      -1   {out}      {wrong}   {back}      0\n"


ROWS = row(8, 0.01) + row(134217728, 400.0) + row(1073741824, 450.0)


def test_a_type_that_nobody_knows(tmp_path: Path) -> None:
    root = machine(tmp_path / "root", "trn9.32xlarge")
    done = learn("--root", root)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith('[types."trn9.32xlarge"]\ngpus = 0\n')
    for line in ("neuron_devices = 16", "efa_devices = 8", "vcpus = 192", "memory_gib = 505", 'source = ["learnt on '):
        assert f"\n{line}" in done.stdout
    file = tmp_path / "types.toml"
    assert learn("--root", root, "--write", file).returncode == 0
    assert read_learnt(file)["trn9.32xlarge"].neuron_devices == 16
    before = file.read_text()
    again = learn("--root", root, "--write", file)
    assert (again.returncode, file.read_text()) == (2, before)
    assert 'has a row "trn9.32xlarge" already' in again.stderr
    other = machine(tmp_path / "other", "trn8.32xlarge")
    assert learn("--root", other, "--write", file).returncode == 0
    assert sorted(read_learnt(file)) == ["trn8.32xlarge", "trn9.32xlarge"]


def test_a_type_that_the_table_knows(tmp_path: Path) -> None:
    file = tmp_path / "types.toml"
    same = learn("--root", machine(tmp_path / "same", "trn1.32xlarge", "0-127"), "--write", file)
    assert (same.returncode, same.stdout) == (0, "")
    assert "this machine is what it says" in same.stderr
    fewer = learn("--root", machine(tmp_path / "fewer", "trn1.32xlarge", "0-126"), "--write", file)
    assert (fewer.returncode, fewer.stdout) == (1, "")
    assert "vcpus is 127 here and 128 in the built-in table" in fewer.stderr
    assert not file.exists()


def test_a_machine_that_says_no_type(tmp_path: Path) -> None:
    done = learn("--root", machine(tmp_path, "Some Server"))
    assert (done.returncode, done.stdout) == (2, "")
    assert "name it with --instance-type" in done.stderr


def test_the_floor_of_a_recording(tmp_path: Path) -> None:
    file = tmp_path / "nccl.txt"
    file.write_text(recording(rows=ROWS))
    known = row_of(SEEN, host="n1", now=0.0)
    assert (known.source, known.efa_devices) == ("learnt on n1 1970-01-01", None)
    learnt = with_floor(known, file)
    assert learnt.nccl_floor == ((134217728, 360.0), (1073741824, 405.0)), "90 % of the slower half"
    assert learnt.nccl_why.startswith("90 %")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (recording(rows=ROWS, tail=""), "was cut off"),
        (recording(ranks=7, rows=ROWS), "with 7 ranks"),
        (recording(rows=row(8, 0.01)), "measures nothing from 128 MiB on"),
        (recording(rows=ROWS + row(2147483648, 450.0, wrong=3)), "has wrong values"),
        (recording(rows=ROWS) + recording(rows=ROWS), "holds 2 runs"),
        ("nothing\n", "holds no table of nccl-tests"),
    ],
)
def test_what_is_no_good_run_makes_no_floor(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "nccl.txt"
    file.write_text(text)
    known: InstanceType = row_of(SEEN, host="n1", now=0.0)
    with pytest.raises(SensorError) as caught:
        with_floor(known, file)
    assert says in str(caught.value)
