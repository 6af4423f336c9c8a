"""Ranks of a live run, killed at random moments; `killed_runs.py --kills 200` is the same at length."""

import json
import os
import subprocess
import sys
from pathlib import Path

from live_run import TRAIN


def test_every_resume_starts_from_what_verifies_and_every_step_is_the_same_to_the_last_bit(tmp_path: Path) -> None:
    ran = subprocess.run(
        [
            sys.executable,
            str(Path(__file__).with_name("killed_runs.py")),
            "--kills",
            "16",
            "--directory",
            str(tmp_path),
        ],
        env=os.environ | {"PYTHONPATH": str(TRAIN), "OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "FATAL"},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    told = json.loads(ran.stdout.splitlines()[-1])
    assert told["faults"] == []
    assert told["kills"] == sum(told["by_kind"].values()) == 16
    assert min(told["by_kind"].values()) >= 1
    assert told["writers_killed_with_a_half_written_file"] >= 1
    assert told["resharded"] >= 1
    assert told["resumed"] >= 3
