"""Saving in the background: what is written is the state at the save, whatever training does meanwhile."""

import json
import os
import random
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from live_run import TRAIN
from nodewatch_train import manifest
from nodewatch_train.checkpoint import Checkpointer
from nodewatch_train.digest import digest_of
from nodewatch_train.manifest import CheckpointError, RefusedError
from nodewatch_train.staging import Staging, tensors
from nodewatch_train.storage import HashedFile, write_tensor
from torch import nn


class Counter:
    """A position in the data, and a part of a run."""

    def __init__(self) -> None:
        self.at = 0

    def state_dict(self) -> dict[str, Any]:
        return {"at": self.at}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.at = state["at"]


class Job:
    """A small run in this process."""

    def __init__(self, root: Path, *, width: int = 32, **options: Any) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(width, width), nn.BatchNorm1d(width), nn.Linear(width, 1))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.01)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, 50)
        self.data = Counter()
        self.loader = Counter()
        self.checkpointer = Checkpointer(
            root,
            model=self.model,
            optimizer=self.optimizer,
            data=self.data,
            also={"schedule": self.schedule},
            rank_state={"loader": self.loader},
            **options,
        )
        self.width = width

    def step(self) -> float:
        self.data.at += 1
        self.loader.at += 10
        x = torch.randn(8, self.width) + random.random() + float(numpy.random.rand())
        loss = self.model(x).square().mean()
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        return float(loss)


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[list[Job]]:
    made: list[Job] = []
    yield made
    for job in made:
        job.checkpointer.close()


@pytest.mark.parametrize("overlap", [True, False])
def test_training_goes_on_while_it_is_written_and_resumes_to_the_last_bit(
    tmp_path: Path, jobs: list[Job], overlap: bool
) -> None:
    random.seed(1)
    numpy.random.seed(1)
    job = Job(tmp_path, overlap=overlap, width=256)
    assert job.checkpointer.resume() == 0
    losses = [job.step() for _ in range(3)]
    job.checkpointer.begin_save(3)
    losses += [job.step() for _ in range(4)]
    saved = job.checkpointer.wait()
    assert saved is not None
    assert (saved.name, saved.step) == ("step-00000003", 3)
    assert saved.held_seconds <= saved.seconds
    job.checkpointer.close()

    random.seed(99)
    numpy.random.seed(99)
    again = Job(tmp_path, width=256)
    jobs.append(again)
    assert again.checkpointer.resume() == 3
    assert (again.data.at, again.loader.at, again.schedule.last_epoch) == (3, 30, 3)
    assert [again.step() for _ in range(4)] == losses[3:]


def test_a_save_is_told_once_and_two_in_a_row_are_both_there(tmp_path: Path, jobs: list[Job]) -> None:
    job = Job(tmp_path)
    jobs.append(job)
    assert job.checkpointer.finished() is None
    job.checkpointer.begin_save(1)
    job.checkpointer.begin_save(2)  # waits for the first, which nobody asked about
    last = job.checkpointer.wait()
    assert last is not None
    assert last.name == "step-00000002"
    assert job.checkpointer.finished() is None
    assert [path.name for path in manifest.checkpoints(tmp_path)] == ["step-00000002", "step-00000001"]


def test_what_changes_outside_of_the_optimiser_while_it_is_copied_is_not_written(tmp_path: Path) -> None:
    weights = {"model": {"weight": torch.zeros(4)}, "buffer": torch.zeros(2)}
    staged = Staging().begin(weights, later=frozenset({"model/weight"}))
    weights["model"]["weight"].add_(1)
    weights["buffer"].add_(1)  # copied at once: may change
    with pytest.raises(CheckpointError, match="model/weight was changed outside of the optimiser's step"):
        staged.finish()
    assert staged.ready.is_set()
    assert staged.of(weights["buffer"]).tolist() == [0, 0]


def test_host_memory_is_kept_from_save_to_save() -> None:
    staging = Staging()
    state = {"a": torch.ones(3), "list": [torch.ones(2), 5]}
    assert [name for name, _ in tensors(state)] == ["a", "list/0"]
    first = staging.begin(state, later=frozenset()).of(state["a"])
    state["a"].add_(1)
    second = staging.begin(state, later=frozenset()).of(state["a"])
    assert second.data_ptr() == first.data_ptr()
    assert second.tolist() == [2, 2, 2]


@pytest.mark.parametrize(
    "tensor",
    [
        torch.randn(3, 5),
        torch.randn(()),
        torch.zeros(0, 4),
        torch.randn(7).bfloat16(),
        torch.tensor([True, False]),
        torch.randn(4).to(torch.float8_e4m3fn),
        torch.randn(4, 6).t(),
        torch.tensor([1 + 2j]),
    ],
    ids=lambda tensor: f"{tensor.dtype} {tuple(tensor.shape)}",
)
def test_torch_load_reads_what_write_tensor_writes(tmp_path: Path, tensor: torch.Tensor) -> None:
    with HashedFile(tmp_path / "x") as out:
        write_tensor(out, tensor)
        entry = out.flushed()
    assert entry.size == (tmp_path / "x").stat().st_size
    with zipfile.ZipFile(tmp_path / "x") as archive:
        assert archive.testzip() is None
    read = torch.load(tmp_path / "x", weights_only=True)
    assert (read.dtype, read.shape) == (tensor.dtype, tensor.shape)
    assert torch.equal(read.to(torch.complex64), tensor.to(torch.complex64))


@pytest.mark.parametrize("writers", [0, 1, 4])
@pytest.mark.parametrize("size", [0, 1, 4096, 4 * 2**20, 4 * 2**20 + 1, 21_000_001])
def test_what_is_hashed_is_what_is_in_the_file(tmp_path: Path, size: int, writers: int) -> None:
    content = random.Random(size).randbytes(size)
    with (
        ThreadPoolExecutor(max(1, writers)) as pool,
        HashedFile(tmp_path / "x", writer=pool if writers else None) as out,
    ):
        out.write(content[:100])
        out.write(bytearray(content[100:]))
        entry = out.flushed()
    assert (tmp_path / "x").read_bytes() == content
    assert entry == digest_of(tmp_path / "x")


def test_a_save_that_is_waited_for_makes_no_copy(tmp_path: Path, jobs: list[Job]) -> None:
    job = Job(tmp_path)
    jobs.append(job)
    losses = [job.step() for _ in range(3)]
    weight = job.model[0].weight
    assert Staging().begin({"w": weight}, later=frozenset(), in_place=True).of(weight).data_ptr() == weight.data_ptr()
    job.checkpointer.save(3)
    job.step()
    job.checkpointer.close()
    again = Job(tmp_path)
    jobs.append(again)
    assert again.checkpointer.resume() == 3
    assert again.data.at == len(losses)


def test_a_part_that_was_not_saved_starts_anew_and_is_said(
    tmp_path: Path, jobs: list[Job], capsys: pytest.CaptureFixture[str]
) -> None:
    job = Job(tmp_path)
    job.step()
    job.checkpointer.save(1)
    job.checkpointer.close()
    again = Job(tmp_path)
    jobs.append(again)
    more = Checkpointer(
        tmp_path,
        model=again.model,
        optimizer=again.optimizer,
        data=again.data,
        also={"schedule": again.schedule, "average": Counter()},
    )
    assert more.resume() == 1
    assert "step-00000001 holds no 'average', which this run saves: it starts anew" in capsys.readouterr().err
    more.close()


def test_another_model_and_a_second_writer_are_refused(tmp_path: Path, jobs: list[Job]) -> None:
    job = Job(tmp_path)
    job.checkpointer.save(1)
    with pytest.raises(RefusedError, match="is being written by a process outside of Slurm"):
        Job(tmp_path).checkpointer.resume()
    job.checkpointer.close()
    other = Job(tmp_path, width=16)
    jobs.append(other)
    with pytest.raises(RefusedError, match="step-00000001 holds another model than this run's"):
        other.checkpointer.resume()


FULL = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_train_checkpoint import Job
job = Job(Path(sys.argv[1]), width=512)
job.checkpointer.save(1)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
job.step()
job.checkpointer.begin_save(2)
job.step()
try:
    job.checkpointer.wait()
except Exception as error:
    print(type(error).__name__, error)
"""


def test_a_disk_that_takes_no_more_is_said_and_the_one_before_stays(tmp_path: Path) -> None:
    root = tmp_path / "full"
    root.mkdir()
    environment = os.environ | {"PYTHONPATH": f"{TRAIN}:{Path(__file__).parent}", "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", FULL, str(root), str(Path(__file__).parent)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.stdout.startswith("CheckpointError cannot write checkpoint "), ran.stderr
    assert "MiB free there" in ran.stdout
    assert "File too large" in ran.stdout
    newest, skipped = manifest.newest_verified(root)
    assert (newest, skipped) == (root / "step-00000001", [])


def test_a_file_that_changes_is_found_through_its_chunks(tmp_path: Path, jobs: list[Job]) -> None:
    job = Job(tmp_path, width=2600)  # 27 MB of weights: more than one chunk a file
    jobs.append(job)
    path = tmp_path / job.checkpointer.save(1).name
    body = json.loads((path / "manifest.json").read_bytes())
    assert body["format_version"] == 2
    large = max(body["files"], key=lambda name: body["files"][name]["size"])
    with open(path / large, "r+b") as stream:
        stream.seek(20_000_000)
        byte = stream.read(1)
        stream.seek(20_000_000)
        stream.write(bytes([byte[0] ^ 1]))
    assert manifest.verify(path).reason == f"step-00000001: {large} does not match its checksum in chunk 1"
