"""The callbacks, driven by the smallest trainers that call them as the real libraries do (those are not installed here)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from live_run import TRAIN

TRANSFORMERS = """
class TrainerCallback:
    pass
"""
LIGHTNING = """
class Callback:
    pass
"""
DRIVE = """
import sys
from pathlib import Path
from types import SimpleNamespace as Object
from nodewatch_train import foreign
root = Path(sys.argv[1])

def huggingface():
    callback = foreign.transformers_callback(root)
    state = Object(global_step=0)
    callback.on_train_begin(None, state, Object())
    while state.global_step < 4:
        state.global_step += 1
        control = Object(should_save=False, should_training_stop=False)
        callback.on_log(None, state, control, logs={"loss": 0.5})
        callback.on_step_end(None, state, control)
        if control.should_save:
            path = root / f"checkpoint-{state.global_step}"
            path.mkdir()
            (path / "trainer_state.json").write_text("{}")
            callback.on_save(None, state, control)
        if control.should_training_stop:
            break
    callback.on_train_end(None, state, control)
    return callback.stopped

def lightning():
    callback = foreign.lightning_callback(root, every=3)
    trainer = Object(global_step=0, should_stop=False, save_checkpoint=lambda path: path.write_bytes(b"x"))
    callback.on_train_start(trainer, None)
    while trainer.global_step < 4 and not trainer.should_stop:
        trainer.global_step += 1
        callback.on_train_batch_end(trainer, None, {"loss": 0.5}, None, 0)
    callback.on_train_end(trainer, None)
    return callback.stopped

print({"huggingface": huggingface, "lightning": lightning}[sys.argv[2]]())
"""


def drive(tmp_path: Path, library: str, **environment: str) -> tuple[str, list[tuple[str, int]], set[str]]:
    """What a run of four steps says of itself: whether it was stopped, its events, and its files."""
    fakes, root = tmp_path / "fakes", tmp_path / "run"
    (fakes / "lightning").mkdir(parents=True)
    (fakes / "transformers.py").write_text(TRANSFORMERS)
    (fakes / "lightning" / "__init__.py").write_text("")
    (fakes / "lightning" / "pytorch.py").write_text(LIGHTNING)
    ran = subprocess.run(
        [sys.executable, "-c", DRIVE, str(root), library],
        env=os.environ | {"PYTHONPATH": f"{fakes}:{TRAIN}"} | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    lines = [json.loads(line) for line in (root / "progress.jsonl").read_text().splitlines()]
    events = [(line["event"], line["step"]) for line in lines]
    return ran.stdout.strip(), events, {path.name for path in root.iterdir()} - {"progress.jsonl"}


def test_a_trainer_that_is_left_alone(tmp_path: Path) -> None:
    stopped, events, files = drive(tmp_path, "huggingface")
    steps = [("step", number) for number in range(1, 5)]
    assert (stopped, files) == ("False", set())
    assert events == [("start", 0), *steps, ("done", 4)]


@pytest.mark.parametrize(("library", "name"), [("huggingface", "checkpoint-1"), ("lightning", "step=1.ckpt")])
def test_a_trainer_saves_and_stops_before_its_time_ends(tmp_path: Path, library: str, name: str) -> None:
    stopped, events, files = drive(tmp_path, library, SLURM_JOB_END_TIME="1")
    assert (stopped, files) == ("True", {name})
    assert events == [("start", 0), ("step", 1), ("phase", 1), ("saved", 1)]


def test_lightning_saves_at_its_interval(tmp_path: Path) -> None:
    stopped, events, files = drive(tmp_path, "lightning")
    assert (stopped, files) == ("False", {"step=3.ckpt"})
    assert events[-3:] == [("saved", 3), ("step", 4), ("done", 4)]


def test_the_plain_loop_goes_on_where_it_was(tmp_path: Path) -> None:
    def run(steps: int, directory: Path) -> list[dict[str, object]]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "NODEWATCH"))}
        command = [sys.executable, str(TRAIN / "examples" / "torchrun_loop.py"), str(directory), str(steps)]
        ran = subprocess.run(
            command, env=environment | {"PYTHONPATH": str(TRAIN)}, capture_output=True, text=True, timeout=60
        )
        assert ran.returncode == 0, ran.stderr
        return [json.loads(line) for line in (directory / "progress.jsonl").read_text().splitlines()]

    lines = run(25, tmp_path)
    assert [line["step"] for line in lines if line["event"] == "saved"] == [10, 20, 25]
    again = run(30, tmp_path)[len(lines) :]
    assert (again[0]["event"], again[0]["resumed_from"], again[-1]["step"]) == ("start", "step-00000025", 30)
