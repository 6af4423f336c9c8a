"""Starts the example's ranks as srun would, and leaves none of them behind."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "train")]

from live_run import TRAIN, Run, StartRun  # noqa: E402 (found on the path set above)


@pytest.fixture
def start_run() -> Iterator[StartRun]:
    """Starts the example's ranks: `start_run(directory, ranks, "--steps", "20", environment={...})`."""
    runs: list[Run] = []

    def start(directory: Path, ranks: int, *options: str, environment: dict[str, str] | None = None) -> Run:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        shared = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "NODEWATCH"))}
        shared |= {
            "PYTHONPATH": str(TRAIN),
            "OMP_NUM_THREADS": "1",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "SLURM_NTASKS": str(ranks),
            **(environment or {}),
        }
        command = [
            sys.executable,
            str(TRAIN / "examples" / "pretrain.py"),
            "--checkpoint-dir",
            str(directory),
            *options,
        ]
        processes = [
            subprocess.Popen(
                command,
                env=shared | {"SLURM_PROCID": str(rank), "SLURM_LOCALID": "0"},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(ranks)
        ]
        run = Run(directory=directory, ranks=processes)
        runs.append(run)
        return run

    yield start
    for run in runs:
        for process in run.ranks:
            if process.poll() is None:
                process.kill()
                process.communicate()
