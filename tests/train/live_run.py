"""A run of the example as real processes: one for each rank, to be watched, signalled and killed."""

import json
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TRAIN = Path(__file__).resolve().parents[2] / "train"
DEADLINE_SECONDS = 60.0


@dataclass
class Run:
    """One life of a job: its ranks, and what they printed once they ended."""

    directory: Path
    ranks: list[subprocess.Popen[str]]
    ended_at: dict[int, float] = field(default_factory=dict)
    codes: list[int] = field(default_factory=list)
    stdout: str = ""
    stderr: list[str] = field(default_factory=list)

    def reach(self, step: int) -> None:
        """Wait until rank 0 has recorded this step."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not any(line["event"] == "step" and line["step"] >= step for line in progress(self.directory)):
            assert time.monotonic() < deadline, f"step {step} was not reached"
            assert self.ranks[0].poll() is None, "rank 0 ended before the step"
            time.sleep(0.02)

    def send(self, number: signal.Signals, *ranks: int) -> None:
        for rank in ranks:
            self.ranks[rank].send_signal(number)

    def wait(self) -> "Run":
        """Wait for the ranks to end, and note when each did."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while len(self.ended_at) < len(self.ranks):
            for rank, process in enumerate(self.ranks):
                if rank not in self.ended_at and process.poll() is not None:
                    self.ended_at[rank] = time.monotonic()
            assert time.monotonic() < deadline, "a rank hangs"
            time.sleep(0.01)
        outputs = [process.communicate() for process in self.ranks]
        self.stdout = outputs[0][0]
        self.stderr = [errors for _, errors in outputs]
        self.codes = [process.returncode for process in self.ranks]
        return self


StartRun = Callable[..., Run]


def progress(directory: Path, event: str | None = None) -> list[dict[str, Any]]:
    """The lines of progress.jsonl, of one event or of all; a half-written last line is not there yet."""
    path = directory / "progress.jsonl"
    text = path.read_text() if path.exists() else ""
    lines = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return [line for line in lines if event in (None, line["event"])]
