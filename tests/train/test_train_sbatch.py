"""The batch script as Slurm runs it: a copy in a spool directory, with nothing but the environment to go by."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from live_run import TRAIN, progress

SCRIPT = TRAIN / "sbatch" / "pretrain.sbatch"

# Stands for srun: notes what it was given, and is the only rank itself.
SRUN = """#!/bin/bash
printf '%s\\n' "$MASTER_ADDR" "$MASTER_PORT" "$@" > "$NOTED"
shift
SLURM_PROCID=0 SLURM_NTASKS=1 exec "$@"
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """What slurmd gives the script, with our directories in place of the defaults, and srun's stand-in in front."""
    commands = tmp_path / "bin"
    commands.mkdir()
    (commands / "srun").write_text(SRUN)
    (commands / "srun").chmod(0o755)
    return {
        "PATH": f"{commands}:{os.environ['PATH']}",
        "NOTED": str(tmp_path / "noted"),
        "SLURM_JOB_ID": "17",
        "SLURM_JOB_NAME": "demo",
        "SLURM_JOB_NODELIST": "n[2-4]",
        "SLURMD_NODENAME": "localhost",
        "SLURM_RESTART_COUNT": "1",
        "TRAIN_HOME": str(TRAIN),
        "TRAIN_PYTHON": sys.executable,
        "CHECKPOINT_DIR": str(tmp_path / "checkpoints" / "demo"),
    }


def run_script(tmp_path: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    spool = tmp_path / "spool"
    spool.mkdir()
    copy = shutil.copy(SCRIPT, spool / "slurm_script")
    return subprocess.run(["bash", str(copy)], env=environment, cwd="/", capture_output=True, text=True, timeout=60)


def test_the_script_trains(tmp_path: Path, environment: dict[str, str]) -> None:
    environment |= {"STEPS": "4", "CHECKPOINT_EVERY": "2", "EXTRA_ARGS": "--seed 7 --keep-checkpoints 1"}
    ran = run_script(tmp_path, environment)
    assert ran.returncode == 0, ran.stderr
    assert "pretrain: job 17, start 2, on n[2-4]" in ran.stdout
    directory = tmp_path / "checkpoints" / "demo"
    assert [line["restart"] for line in progress(directory, "done")] == [1]
    assert {path.name for path in directory.iterdir()} == {".lock", "progress.jsonl", "step-00000004"}
    host, port, *arguments = (tmp_path / "noted").read_text().splitlines()
    assert (host, int(port)) == ("localhost", 20000 + 17 * 64 + 1)
    assert arguments[0] == "--kill-on-bad-exit=1"


@pytest.mark.parametrize("name", ["TRAIN_HOME", "TRAIN_PYTHON"])
def test_a_wrong_place_is_said_in_one_sentence(tmp_path: Path, environment: dict[str, str], name: str) -> None:
    ran = run_script(tmp_path, environment | {name: str(tmp_path / "nowhere")})
    assert ran.returncode == 1
    [line] = ran.stderr.splitlines()
    assert "nowhere" in line
    assert f"set {name}" in line
    assert "on localhost" in line


def test_the_job_asks_for_what_lets_it_come_back() -> None:
    asked = {line.removeprefix("#SBATCH ") for line in SCRIPT.read_text().splitlines() if line.startswith("#SBATCH ")}
    assert {"--nodes=3", "--ntasks-per-node=1", "--gpus-per-node=8", "--auto-resume=3", "--open-mode=append"} <= asked
    assert any(option.startswith("--output=") for option in asked)


def test_with_nodes_to_spare_it_starts_on_the_others(tmp_path: Path, environment: dict[str, str]) -> None:
    environment |= {"STEPS": "2", "NODEWATCH_AUTO_RESUME": "3,spares=1"}
    # Options of the supervisor's and none of the script's: the stand-in drops one word alone.
    Path(environment["PATH"].split(":")[0], "srun").write_text(
        SRUN.replace("shift\n", "while [[ $1 == -* ]]; do shift; done\nMASTER_ADDR=localhost ")
    )
    ran = run_script(tmp_path, environment)
    assert ran.returncode == 0, ran.stderr
    assert "supervise: starting on n2,n3" in ran.stderr
    host, _, *arguments = (tmp_path / "noted").read_text().splitlines()
    assert (host, arguments[:2]) == ("n2", ["--nodes=2", "--nodelist=n2,n3"])
    assert [line["step"] for line in progress(Path(environment["CHECKPOINT_DIR"]), "done")] == [2]
