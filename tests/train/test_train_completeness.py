"""Checkpoints of every layout, as their libraries write them or by their shape; whole, and damaged in each way."""

import json
import shutil
import struct
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from live_run import TRAIN
from nodewatch_train import completeness, manifest
from nodewatch_train.completeness import DRIVERS, find, newest_whole, verify
from nodewatch_train.manifest import CheckpointError
from torch.distributed.checkpoint import save as dcp_save

STATE = {"weights": torch.arange(5000.0), "nested": {"bias": torch.ones(7), "step": 3, "name": "adam"}}


def safetensors(path: Path, size: int = 400) -> None:
    """A file of the format: the length of a header, the header, the bytes that it places."""
    header = json.dumps(
        {"__metadata__": {"format": "pt"}, "w": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}}
    ).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(size))


def ours(root: Path) -> Path:
    tmp = manifest.begin(root, 30)
    torch.save(STATE, tmp / "weights.pt")
    return manifest.commit(tmp, 30, world_size=1)


def dcp(root: Path) -> Path:
    path = root / "iter_0000030"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp_save(STATE, checkpoint_id=path, no_dist=True)
    return path


def huggingface(root: Path) -> Path:
    path = root / "checkpoint-30"
    path.mkdir()
    for number in (1, 2):
        safetensors(path / f"model-0000{number}-of-00002.safetensors")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": shards}))
    torch.save(STATE, path / "optimizer.pt")
    (path / "rng_state.pth").write_bytes(b"\x80 anything but a zip archive")
    (path / "trainer_state.json").write_text(json.dumps({"global_step": 30}))
    return path


def lightning(root: Path) -> Path:
    path = root / "epoch=1-step=30.ckpt"
    torch.save({"state_dict": STATE, "global_step": 30}, path)
    return path


def plain(root: Path) -> Path:
    path = root / "model-30.pt"
    torch.save(STATE, path)
    return path


LAYOUTS: dict[str, Callable[[Path], Path]] = {
    "nodewatch": ours,
    "dcp": dcp,
    "huggingface": huggingface,
    "lightning": lightning,
    "torch": plain,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_whole_one_is_found_and_whole(tmp_path: Path, layout: str) -> None:
    path = LAYOUTS[layout](tmp_path)
    [(found, driver)] = find(tmp_path)
    assert (found, driver.name) == (path, layout)
    report = verify(path, driver)
    assert (report.ok, report.reason, report.step) == (True, "", 30)
    assert report.proved
    assert report.size > 400
    assert find(path) == [(path, driver)]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip(path: Path) -> None:
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 1
    path.write_bytes(whole)


@pytest.mark.parametrize(
    ("layout", "name", "damage", "said"),
    [
        ("nodewatch", "weights.pt", flip, "weights.pt does not match its checksum"),
        ("nodewatch", "manifest.json", Path.unlink, "has no manifest.json"),
        ("dcp", ".metadata", Path.unlink, "has no .metadata: it is written last"),
        ("dcp", ".metadata", cut, ".metadata was cut off after"),
        ("dcp", ".metadata", empty, ".metadata was cut off after 0 bytes"),
        ("dcp", "__0_0.distcp", Path.unlink, "__0_0.distcp is missing"),
        ("dcp", "__0_0.distcp", cut, "bytes and .metadata places data up to"),
        ("huggingface", "trainer_state.json", Path.unlink, "has no trainer_state.json"),
        ("huggingface", "trainer_state.json", cut, "checkpoint-30 cannot be read"),
        (
            "huggingface",
            "model-00002-of-00002.safetensors",
            Path.unlink,
            "is missing, which model.safetensors.index.json",
        ),
        ("huggingface", "model-00002-of-00002.safetensors", cut, "bytes and its header places"),
        ("huggingface", "model-00001-of-00002.safetensors", empty, "was cut off after 0 bytes"),
        ("huggingface", "optimizer.pt", cut, "optimizer.pt is torn"),
        ("huggingface", "optimizer.pt", flip, "optimizer.pt does not match its checksum"),
        ("huggingface", "rng_state.pth", empty, "rng_state.pth is empty"),
        ("lightning", "", cut, "is torn"),
        ("lightning", "", flip, "does not match its checksum in"),
        ("lightning", "", empty, "is no zip archive"),
        ("torch", "", cut, "is torn"),
    ],
)
def test_damage_is_said(tmp_path: Path, layout: str, name: str, damage: Callable[[Path], object], said: str) -> None:
    path = LAYOUTS[layout](tmp_path)
    damage(path / name if name else path)
    [(_, driver)] = find(tmp_path)
    report = verify(path, driver)
    assert not report.ok
    assert said in report.reason
    assert "\n" not in report.reason
    assert newest_whole(tmp_path) == (None, [report])


def test_a_trainer_state_of_another_step_is_a_lie(tmp_path: Path) -> None:
    path = huggingface(tmp_path)
    (path / "trainer_state.json").write_text(json.dumps({"global_step": 20}))
    [(_, driver)] = find(tmp_path)
    assert verify(path, driver).reason == "checkpoint-30: trainer_state.json says step 20"


def test_the_pieces_of_a_dcp_checkpoint_are_those_that_torch_reads(tmp_path: Path) -> None:
    path = dcp(tmp_path)
    torch.save(STATE, path / "another")
    extents = completeness.dcp_extents(path / ".metadata")
    assert extents == {"__0_0.distcp": (path / "__0_0.distcp").stat().st_size}


def test_a_metadata_that_leads_elsewhere_is_not_followed(tmp_path: Path) -> None:
    path = dcp(tmp_path)
    raw = (path / ".metadata").read_bytes()
    (path / ".metadata").write_bytes(raw.replace(b"__0_0.distcp", b"../../passwd"))
    [(_, driver)] = find(tmp_path)
    assert "names a file outside of its directory" in verify(path, driver).reason


def test_the_newest_whole_one_is_taken_and_the_torn_one_told(tmp_path: Path) -> None:
    old = huggingface(tmp_path)
    new = Path(shutil.copytree(old, tmp_path / "checkpoint-200"))
    (tmp_path / "checkpoint-notes.txt").write_text("not one")
    report, skipped = newest_whole(tmp_path)
    assert report is not None
    assert report.path == old
    assert [one.path for one in skipped] == [new]
    assert "trainer_state.json says step 30" in skipped[0].reason


def test_what_cannot_be_looked_at_is_said(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="none does not exist"):
        find(tmp_path / "none")
    with pytest.raises(CheckpointError, match="there is no driver 'orbax': nodewatch, huggingface"):
        find(tmp_path, driver="orbax")
    assert len({driver.name for driver in DRIVERS}) == len(DRIVERS) == len(LAYOUTS)


def test_it_needs_no_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; import nodewatch_train.completeness, nodewatch_train.lock; print('ok')"
    ran = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(TRAIN)}, capture_output=True, text=True)
    assert ran.stdout == "ok\n", ran.stderr


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "nodewatch.cli", "checkpoint", *map(str, arguments)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60)


def test_the_command_lists_verifies_and_deletes(tmp_path: Path) -> None:
    for step in (10, 20, 30, 40):
        tmp = manifest.begin(tmp_path, step)
        (tmp / "weights").write_bytes(bytes(100))
        manifest.commit(tmp, step, world_size=1)
    assert command("verify", tmp_path).returncode == 0
    flip(tmp_path / "step-00000040" / "weights")
    listed = command("list", tmp_path)  # sizes alone: it still looks whole
    assert listed.returncode == 0
    assert listed.stdout.splitlines()[1].split()[:3] == ["step-00000040", "nodewatch", "40"]
    verified = command("verify", tmp_path, "--json")
    assert verified.returncode == 1
    torn, *rest = json.loads(verified.stdout)["checkpoints"]
    assert (torn["step"], torn["whole"]) == (40, False)
    assert torn["reason"] == "step-00000040: weights does not match its checksum"
    assert [one["whole"] for one in rest] == [True] * 3

    manifest.begin(tmp_path, 50)
    would = command("gc", tmp_path, "--keep", "1", "--unfinished")
    assert would.returncode == 0
    assert [line.split()[:2] for line in would.stdout.splitlines()] == [["would", "delete"]] * 3
    assert len(manifest.checkpoints(tmp_path)) == 4
    done = command("gc", tmp_path, "--keep", "1", "--unfinished", "--yes", "--json")
    assert json.loads(done.stdout)["deleted"][:2] == ["step-00000020", "step-00000010"]
    assert {path.name for path in tmp_path.iterdir()} == {"step-00000030", "step-00000040"}
    # The torn one stays, and the one that is whole is never the one that goes.
    again = command("gc", tmp_path, "--keep", "1", "--yes")
    assert again.stdout == "nothing to delete: 1 of 2 are whole, and 1 stay\n"


def test_the_command_says_what_it_cannot_do(tmp_path: Path) -> None:
    missing = command("list", tmp_path / "none")
    assert missing.returncode == 2
    assert missing.stderr == f"nodewatch: {tmp_path}/none does not exist\n"
    nothing = command("verify", tmp_path)
    assert (nothing.returncode, nothing.stdout) == (1, "no checkpoint of a layout that is known\n")
    path = ours(tmp_path)
    assert command("gc", path, "--yes").returncode == 2
    assert path.exists()
    assert command("verify", tmp_path, "--sample", "5", "--driver", "nodewatch").returncode == 0
