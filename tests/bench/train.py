"""The figures of the training side, side by side in one run, as JSON: `python tests/bench/train.py [--directory DIR]`.

    held       how long a save holds a training step up: ours, torch's async_save, and a plain torch.save of the same state
    throughput of a whole save, flushed and verified, against plain parallel writes with fsync of as many bytes
    kills      a rank, a node, all of them, or a writer within a file killed 200 times, and some runs resharded
               (with --kills 200; takes a quarter of an hour)

Each round takes all of them in turn, since the speed of a virtual disk changes from minute to minute; medians are told.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "train"))

import torch  # noqa: E402
import torch.distributed.checkpoint as dcp  # noqa: E402
from nodewatch_train import manifest  # noqa: E402
from nodewatch_train.checkpoint import Checkpointer  # noqa: E402
from nodewatch_train.storage import memory_of  # noqa: E402
from torch import nn  # noqa: E402
from torch.distributed.checkpoint.state_dict import get_state_dict  # noqa: E402

THREADS = 2


class Nothing:
    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to put back."""


class Work:
    """A model whose parameters and Adam state are of the asked size, and one training step of it."""

    def __init__(self, mib: int) -> None:
        width, layers = 1024, max(1, mib // 12)  # a layer: 4 MiB, and twice as much for Adam
        self.model = nn.Sequential(*[nn.Linear(width, width, bias=False) for _ in range(layers)])
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-6)
        self.x = torch.randn(256, width)

    def forward_backward(self) -> None:
        self.optimizer.zero_grad()
        self.model(self.x).square().mean().backward()

    def step(self) -> float:
        began = time.perf_counter()
        self.forward_backward()
        self.optimizer.step()
        return time.perf_counter() - began

    def state(self) -> dict[str, Any]:
        model, optimizer = get_state_dict(self.model, self.optimizer)
        return {"model": model, "optimizer": optimizer}


def clear(path: Path) -> None:
    """Away, and all that is still on its way to the disk waited for: each measurement begins with an idle disk."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    os.sync()


def touch(count: int) -> None:
    """Use memory once: a virtual machine's host gives a page at its first use, and whoever measures first would pay."""
    memory = bytearray(count)
    for offset in range(0, count, 4096):
        memory[offset] = 1


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def plain_parallel(directory: Path, tensors: list[torch.Tensor]) -> None:
    """The fastest that a program without any format would write: as many threads, large writes, fsync."""

    def write(number: int) -> None:
        descriptor = os.open(directory / str(number), os.O_WRONLY | os.O_CREAT)
        for tensor in tensors[number::THREADS]:
            data = memory_of(tensor)
            while len(data):
                data = data[os.write(descriptor, data[: 8 << 20]) :]
        os.fsync(descriptor)
        os.close(descriptor)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(write, range(THREADS)))


def measure(work: Work, directory: Path, rounds: int) -> dict[str, Any]:
    seen: dict[str, list[float]] = {}

    def note(name: str, seconds: float) -> None:
        seen.setdefault(name, []).append(seconds)

    root = directory / "ours"
    clear(root)
    ours = Checkpointer(root, model=work.model, optimizer=work.optimizer, data=Nothing(), keep=1, threads=THREADS)
    work.step()  # makes Adam's state
    size = sum(tensor.nbytes for tensor in memory(work))
    for number in range(1, rounds + 2):
        first = number == 1  # memory is allocated and modules are loaded once
        usual = work.step()
        # Ours. Held up: in begin_save, and in the optimiser's step until the copy is done.
        for path in manifest.checkpoints(root):
            shutil.rmtree(path)
        os.sync()
        ours.begin_save(number)
        during = work.step()
        saved = ours.wait()
        assert saved is not None
        for path in manifest.checkpoints(root):
            shutil.rmtree(path)
        os.sync()
        whole = ours.save(1000 + number).seconds
        # torch's, as its tutorial has it. Held up: in async_save.
        clear(directory / "torch-async")
        began = time.perf_counter()
        future = dcp.async_save(work.state(), checkpoint_id=directory / "torch-async", no_dist=True)
        held_by_torch = time.perf_counter() - began
        future.result()  # type: ignore[union-attr]
        torch_whole = time.perf_counter() - began
        clear(directory / "torch-save")
        plain_save = timed(lambda: torch.save(work.state(), directory / "torch-save" / "state.pt"))
        clear(directory / "plain")
        plain = timed(lambda: plain_parallel(directory / "plain", memory(work)))
        if first:
            continue
        note("step_s", usual)
        note("step_with_our_save_s", during)
        note("held_ours_s", saved.held_seconds)
        note("held_torch_async_save_s", held_by_torch)
        note("torch_save_s", plain_save)
        note("whole_ours_s", whole)
        note("whole_torch_async_save_s", torch_whole)
        note("plain_parallel_fsync_s", plain)
    ours.close()
    figures: dict[str, Any] = {name: round(statistics.median(values), 4) for name, values in seen.items()}
    pairs = zip(seen["plain_parallel_fsync_s"], seen["whole_ours_s"], strict=True)
    return {
        "state_mib": round(size / 2**20),
        "rounds": rounds,
        **figures,
        "held_share_of_torch_save": round(figures["held_ours_s"] / figures["torch_save_s"], 4),
        "held_share_of_torch_async_save": round(figures["held_ours_s"] / figures["held_torch_async_save_s"], 4),
        "throughput_ours_mib_s": round(size / 2**20 / figures["whole_ours_s"]),
        "throughput_plain_mib_s": round(size / 2**20 / figures["plain_parallel_fsync_s"]),
        "throughput_share_of_plain": round(figures["plain_parallel_fsync_s"] / figures["whole_ours_s"], 3),
        "throughput_shares_by_round": [round(plain / ours, 2) for plain, ours in pairs],
        "bars": {
            "held_share_of_torch_save": 0.05,
            "held_share_of_torch_async_save": 1.0,
            "throughput_share_of_plain": 0.9,
        },
    }


def memory(work: Work) -> list[torch.Tensor]:
    state = work.optimizer.state_dict()["state"]
    moments = [value for entry in state.values() for value in entry.values() if value.dim()]
    return [*(parameter.detach() for parameter in work.model.parameters()), *moments]


def killed(count: int, directory: Path) -> dict[str, Any]:
    ran = subprocess.run(
        [
            sys.executable,
            str(REPOSITORY / "tests" / "train" / "killed_runs.py"),
            *("--kills", str(count), "--directory", str(directory)),
        ],
        env=os.environ
        | {"PYTHONPATH": str(REPOSITORY / "train"), "OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "FATAL"},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    told: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return told


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", type=Path, help="on the file system to be measured; a temporary one otherwise")
    parser.add_argument("--mib", type=int, default=600, help="size of the state")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--output", type=Path, help="a file for the JSON as well")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    touch(min(8 << 30, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES") // 2))
    if options.directory:
        options.directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.directory) as name:
        directory = Path(name)
        figures: dict[str, Any] = {
            "at": round(time.time()),
            "cores": os.cpu_count(),
            "kernel": platform.release(),
            "torch": torch.__version__,
            "save": measure(Work(options.mib), directory, options.rounds),
        }
        if options.kills:
            figures["kills"] = killed(options.kills, directory / "kills")
    text = json.dumps(figures, indent=1)
    if options.output:
        options.output.write_text(text + "\n")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
