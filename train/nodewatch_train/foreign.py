"""For trainers that write their own checkpoints: Hugging Face's Trainer and Lightning, each by one callback.

    trainer = Trainer(..., callbacks=[transformers_callback(args.output_dir)])
    trainer.train(resume_from_checkpoint=newest(args.output_dir))

    trainer = lightning.Trainer(..., callbacks=[lightning_callback(directory)])
    trainer.fit(model, data, ckpt_path=newest(directory))

The callback asks for a checkpoint before the time ends, on a notice and when asked to stop, at a step that all ranks agree
on; flushes to the disk what the trainer only wrote; and records progress. The trainer's own intervals stay as they are.
The libraries are imported when a callback is made.
"""

# ruff: noqa: ARG002 (a callback has the whole signature of what the library calls)
import importlib
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from nodewatch_train import completeness
from nodewatch_train.checkpoint import RESUME_FROM
from nodewatch_train.launch import Launch
from nodewatch_train.manifest import flush
from nodewatch_train.progress import ProgressLog
from nodewatch_train.signals import Ask, StopRequest


def newest(directory: str | Path, *, driver: str | None = None) -> str | None:
    """The newest checkpoint in a directory that is whole, or None to start anew: the same on every rank.

    NODEWATCH_RESUME_FROM is preferred when it is whole. What is passed over is said on standard error. On ranks that
    have no process group yet each looks for itself, which is the same as long as nobody writes.
    """
    wanted = os.environ.get(RESUME_FROM)
    root = Path(directory)
    for place in (Path(wanted) if wanted else None, root):
        if place is None or not place.exists():
            continue
        found, skipped = completeness.newest_whole(place, driver=driver)
        for report in skipped:
            print(f"checkpoint: skipped {report.reason}", file=sys.stderr, flush=True)
        if found is not None:
            return str(found.path)
    return None


class Watch:
    """What both callbacks do; `after_step` says what the trainer has to."""

    def __init__(self, directory: Path, *, stop: StopRequest | None = None) -> None:
        launch = Launch.from_environment(os.environ, gpus=torch.cuda.device_count())
        directory.mkdir(parents=True, exist_ok=True)
        self.stop = stop or StopRequest()
        self._directory = directory
        self._log = ProgressLog(directory, rank=launch.rank, restart=launch.restart)
        self._launch = launch

    def started(self, step: int) -> None:
        """Training begins after so many steps."""
        resumed = None if step == 0 else f"step {step}"
        self._log.start(world_size=self._launch.world_size, resumed_from=resumed, step=step)

    def after_step(self, step: int, loss: float | None) -> Ask:
        """What all ranks do now."""
        self._log.step(step, loss)
        on_gpu = dist.is_initialized() and dist.get_backend() == "nccl"
        ask = self.stop.agree(self._launch.device if on_gpu else torch.device("cpu"))
        if ask:
            self.pausing(step)
        return ask

    def pausing(self, step: int) -> None:
        """Something begins that is no step: a save, an evaluation."""
        self._log.phase("saving", step)

    def stepping(self) -> None:
        """The next step begins."""
        self._log.heartbeat.stepping()

    def saved(self, step: int, path: Path, seconds: float) -> None:
        """The trainer wrote a checkpoint: flush it, and tell of it."""
        if self._launch.rank == 0:
            flush_tree(path)
        self.stop.saved(seconds)
        self._log.saved(step, path.name, seconds)
        self.stepping()

    def done(self, step: int, loss: float | None) -> None:
        """All steps are completed."""
        self._log.done(step, loss)


def transformers_callback(output_dir: str | Path, *, stop: StopRequest | None = None) -> Any:
    """A TrainerCallback. Stopped, the Trainer saves and returns from `train`: end with EXIT_STOPPED if `.stopped`."""
    base: Any = importlib.import_module("transformers").TrainerCallback

    class NodewatchCallback(base):  # type: ignore[misc]
        stopped = False

        def __init__(self) -> None:
            self._watch = Watch(Path(output_dir), stop=stop)
            self._loss: float | None = None
            self._began = 0.0

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self._watch.started(state.global_step)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            self._loss = (logs or {}).get("loss", self._loss)

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self._watch.stepping()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
            ask = self._watch.after_step(state.global_step, self._loss)
            self._began = time.monotonic()
            if not ask and (control.should_save or getattr(control, "should_evaluate", False)):
                self._watch.pausing(state.global_step)  # at the Trainer's own interval
            if ask:
                control.should_save = True
            if ask is Ask.STOP:
                self.stopped = control.should_training_stop = True
            return control

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            path = Path(output_dir) / f"checkpoint-{state.global_step}"
            self._watch.saved(state.global_step, path, time.monotonic() - self._began)

        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if not self.stopped:
                self._watch.done(state.global_step, self._loss)

    return NodewatchCallback()


def lightning_callback(directory: str | Path, *, every: int | None = None, stop: StopRequest | None = None) -> Any:
    """A Callback that also saves `step=N.ckpt` into the directory each `every` steps, and keeps what is there.

    Lightning's own handler of SIGUSR1, which NCCL uses, is left off by SLURMEnvironment(auto_requeue=False).
    """
    try:
        base: Any = importlib.import_module("lightning.pytorch").Callback
    except ModuleNotFoundError:
        base = importlib.import_module("pytorch_lightning").Callback

    class NodewatchCallback(base):  # type: ignore[misc]
        stopped = False

        def __init__(self) -> None:
            self._watch = Watch(Path(directory), stop=stop)
            self._loss: float | None = None

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            self._watch.started(trainer.global_step)

        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
            self._loss = None if loss is None else float(loss)
            step = trainer.global_step
            ask = self._watch.after_step(step, self._loss)
            if ask or (every and step % every == 0):
                began = time.monotonic()
                if not ask:
                    self._watch.pausing(step)
                path = Path(directory) / f"step={step}.ckpt"
                trainer.save_checkpoint(path)  # a collective; Lightning writes another name and renames
                self._watch.saved(step, path, time.monotonic() - began)
            if ask is Ask.STOP:
                self.stopped = trainer.should_stop = True

        def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
            self._watch.pausing(trainer.global_step)

        def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
            self._watch.stepping()

        def on_train_end(self, trainer: Any, pl_module: Any) -> None:
            if not self.stopped:
                self._watch.done(trainer.global_step, self._loss)

    return NodewatchCallback()


def flush_tree(path: Path) -> None:
    """Put a file, or all files of a directory, on stable storage, and their names."""
    for top, _, names in os.walk(path) if path.is_dir() else []:
        for name in (*names, "."):
            flush(Path(top) / name)
    if path.exists():
        flush(path)
        flush(path.parent)
