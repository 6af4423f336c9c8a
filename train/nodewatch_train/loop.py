"""For a plain training loop under torchrun or srun: `for step in Loop(...).steps(1000):` does all that is around a step."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from nodewatch_train.checkpoint import Checkpointer, DataPosition, Saved, Stateful
from nodewatch_train.interval import Pace
from nodewatch_train.launch import Launch
from nodewatch_train.progress import ProgressLog
from nodewatch_train.signals import EXIT_STOPPED, Ask, StopRequest, leave


class Loop:
    """Resumes, saves in the background, stops when asked, and records progress.

    Made on every rank after init_process_group, in the main thread, before the first step. every: steps between saves; None
    takes the interval from what a save costs and NODEWATCH_MTBF_S. What else is passed on goes to Checkpointer.
    """

    def __init__(
        self,
        directory: Path,
        *,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        data: DataPosition | None = None,
        also: Mapping[str, Stateful] | None = None,
        every: int | None = None,
        **options: Any,
    ) -> None:
        self._launch = Launch.from_environment(os.environ, gpus=torch.cuda.device_count())
        self._stop = StopRequest()
        self._every = every
        self._pace = Pace()
        self._is_tiered = options.get("local") is not None
        self._loss: float | None = None
        self._checkpointer = Checkpointer(
            directory, model=model, optimizer=optimizer, data=data or _StepsAlone(), also=also, **options
        )
        self._progress = ProgressLog(directory, rank=self._launch.rank, restart=self._launch.restart)

    def steps(self, total: int) -> Iterator[int]:
        """The numbers of the steps that are left, the first of all being 1. Asked to stop, it saves and ends the process."""
        done = self._checkpointer.resume()
        resumed_from = self._checkpointer.resumed_from
        self._progress.start(world_size=self._launch.world_size, resumed_from=resumed_from, step=done)
        while done < total:
            yield done + 1
            done += 1
            self._progress.step(done, self._loss)
            self._after(done, last=done == total)
        self._progress.done(done, self._loss)
        self._checkpointer.close()

    def report(self, loss: float) -> None:
        """The loss of this step, for the record of progress."""
        self._loss = loss

    def _after(self, done: int, *, last: bool) -> None:
        self._tell(self._checkpointer.finished())
        if self._every is None and self._launch.rank == 0 and self._pace.is_due():
            self._stop.ask_to_save()
        ask = self._stop.agree(self._launch.device)
        if ask is Ask.STOP or last:
            self._progress.phase("saving", done)
        with self._stop.saving():
            if ask is Ask.STOP or last:
                self._tell(self._checkpointer.wait())
                self._tell(self._checkpointer.save(done))
            elif ask is Ask.SAVE or (self._every is not None and done % self._every == 0):
                self._pace.began()
                with self._progress.heartbeat.saving():
                    self._tell(self._checkpointer.wait())
                    self._checkpointer.begin_save(done)
        if ask is Ask.STOP and not last:
            self._checkpointer.close()
            leave(EXIT_STOPPED, f"asked to stop: saved step {done}" if self._launch.rank == 0 else "")

    def _tell(self, saved: Saved | None) -> None:
        if saved is not None and saved.is_local:
            self._progress.kept(saved.step, saved.seconds, saved.held_seconds)
            self._pace.measured(held_s=saved.held_seconds, seconds=saved.seconds)
        elif saved is not None:
            self._progress.saved(saved.step, saved.name, saved.seconds, saved.held_seconds)
            self._stop.saved(saved.seconds)
            if not self._is_tiered:
                self._pace.measured(held_s=saved.held_seconds, seconds=saved.seconds)


class _StepsAlone:
    """For data that is a function of the step."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to put back."""
