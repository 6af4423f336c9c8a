"""Checkpoints on the nodes themselves: what is read again after which loss; `tiered_runs.py` drives the ranks."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from live_run import TRAIN
from nodewatch_train import manifest
from nodewatch_train.digest import digest_of
from nodewatch_train.tiers import LocalTier, peers_of
from nodewatch_train.transfer import copy_file
from test_train_bad_directory import in_namespace
from test_train_checkpoint import Job

ALL = {
    "share-0": "a",
    "share-1": "a",
    "share-2": "b",
    "share-3": "b",
    "copy-0": "b",
    "copy-1": "b",
    "copy-2": "a",
    "copy-3": "a",
}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    ran = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("tiered_runs.py")), str(tmp_path_factory.mktemp("tiers"))],
        env=os.environ | {"PYTHONPATH": str(TRAIN), "OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "FATAL"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize(
    ("happens", "resumed_at"),
    [
        ("processes", 6),
        ("a_node", 6),
        ("the_first_node", 6),
        ("one_share_of_each", 6),
        ("halfway_through_a_save", 6),
        ("a_node_and_a_copy", 5),  # the save before stands until the next does
        ("a_mixed_save", 5),
        ("both_nodes", 1),
        ("sent_back", 1),
        ("no_local_storage", 1),
    ],
)
def test_it_goes_on_from_the_newest_save_that_is_whole_somewhere(
    told: dict[str, Any], happens: str, resumed_at: int
) -> None:
    assert told[happens]["resumed_at"] == resumed_at
    assert told[happens]["steps"] == list(range(resumed_at + 1, 10))
    assert told[happens]["differ"] == []  # to the last bit as the run that went through


@pytest.mark.parametrize("happens", ["processes, on 2 ranks", "a_node, on 3 ranks"])
def test_another_number_of_ranks_goes_on_from_it_too(told: dict[str, Any], happens: str) -> None:
    assert told[happens]["resumed_at"] == 6
    assert told[happens]["steps"] == [7, 8, 9]


def test_two_saves_stay_on_each_node_and_a_copy_on_the_next(told: dict[str, Any]) -> None:
    for happens in ("processes", "a_node", "sent_back", "halfway_through_a_save"):
        assert told[happens]["left"] == sorted(
            f"{node}/home/{name}/step-0000000{step}" for name, node in ALL.items() for step in (8, 9)
        )


def test_without_room_on_the_nodes_each_save_goes_to_the_directory(told: dict[str, Any]) -> None:
    assert told["no_local_storage"]["left"] == []
    assert told["no_local_storage"]["saved"] == list(range(2, 10))
    assert told["processes"]["saved"] == []


@pytest.mark.parametrize(
    ("places", "peers"),
    [
        ("aabb", {0: 2, 1: 3, 2: 0, 3: 1}),
        ("abc", {0: 1, 1: 2, 2: 0}),
        ("aab", {0: 2, 1: 2, 2: 0}),
        ("abab", {0: 1, 2: 3, 1: 0, 3: 2}),
        ("aa", {}),
    ],
)
def test_each_share_is_copied_to_another_node(places: str, peers: dict[int, int]) -> None:
    assert peers_of(list(places)) == peers
    assert all(places[rank] != places[peer] for rank, peer in peers.items())


@pytest.mark.parametrize("size", [0, 5, 4 * 2**20, 9_000_001])
def test_a_file_is_copied_with_its_checksum(tmp_path: Path, size: int) -> None:
    (tmp_path / "from").write_bytes(os.urandom(size))
    assert copy_file(tmp_path / "from", tmp_path / "to") == digest_of(tmp_path / "from") == digest_of(tmp_path / "to")


def test_a_save_is_told_once_it_stands_and_again_once_it_is_in_the_directory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, local = tmp_path / "root", LocalTier(directory=tmp_path / "local")
    root.mkdir()
    job = Job(root, local=local)
    job.step()
    job.checkpointer.begin_save(1)
    stands = job.checkpointer.wait()
    assert stands is not None
    assert (stands.is_local, stands.name) == (True, "step-00000001")
    while (flushed := job.checkpointer.finished()) is None:
        pass
    assert (flushed.is_local, flushed.name) == (False, "step-00000001")
    assert manifest.newest_verified(root) == (root / "step-00000001", [])
    job.step()
    job.checkpointer.save(2)  # what is waited for is in the directory
    assert manifest.newest_verified(root) == (root / "step-00000002", [])
    losses = [job.step() for _ in range(2)]
    job.checkpointer.begin_save(4)
    job.checkpointer.close()
    for path in manifest.checkpoints(root):
        if path.name == "step-00000004":
            path.rename(tmp_path / "step-00000004")  # as if it had not come so far
    again = Job(root, local=local)
    assert again.checkpointer.resume() == 4
    assert again.data.at == 2 + len(losses)
    again.checkpointer.close()
    assert "step-00000004 is read from the nodes' own storage" in capsys.readouterr().err


def test_nodes_without_room_cost_nothing_but_speed(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    script = """
from nodewatch_train.tiers import LocalTier
job = Job(root.parent / "root", width=256, local=LocalTier(directory=root, flush_s=1e9))
for step in (1, 2, 3):
    job.step()
    job.checkpointer.begin_save(step)
    told(lambda: job.checkpointer.wait().is_local)
job.checkpointer.close()
print(newest_verified(root.parent / "root"))
"""
    told = in_namespace('mount -t tmpfs -o size=1200k none "$PLACE"', tmp_path / "memory", script)
    assert told == ["True", "False", "False", f"(PosixPath('{tmp_path}/root/step-00000003'), [])"]
