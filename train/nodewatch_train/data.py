"""Each sample once an epoch, however often the run is interrupted and on however many ranks it goes on.

The order of an epoch is a function of the seed and the epoch alone. The position is the number of samples that all ranks
together have taken, so it means the same at every world size. What a loader has fetched ahead and no step has used
is not counted: `took` is called after the step.
"""

from collections.abc import Iterator
from typing import Any

import torch

from nodewatch_train.manifest import RefusedError


class ExactlyOnce:
    """Gives this rank's indices, batch by batch, without end; what is left of an epoch below a global batch is dropped.

    length: samples in the data. batch: samples a rank and step. Give it to DataLoader as `batch_sampler`, and to
    Checkpointer as `data`. With workers the loader runs ahead; `took` says how far training is.
    """

    def __init__(self, length: int, *, batch: int, rank: int, world_size: int, seed: int = 0) -> None:
        if length < batch * world_size:
            raise RefusedError(
                f"{length} samples are fewer than one step takes ({batch} on each of {world_size} ranks)"
            )
        self.epoch = 0
        self.taken = 0
        self._length, self._batch, self._seed = length, batch, seed
        self._rank, self._world_size = rank, world_size

    def __iter__(self) -> Iterator[list[int]]:
        epoch, taken, step = self.epoch, self.taken, self._batch * self._world_size
        while True:
            order = torch.randperm(
                self._length, generator=torch.Generator().manual_seed(self._seed * 1_000_003 + epoch)
            )
            while taken + step <= self._length:
                first = taken + self._rank * self._batch
                yield order[first : first + self._batch].tolist()
                taken += step
            epoch, taken = epoch + 1, 0

    def took(self, steps: int = 1) -> None:
        """Training has used the batches of so many steps."""
        step = self._batch * self._world_size
        for _ in range(steps):
            if self.taken + step > self._length:
                self.epoch, self.taken = self.epoch + 1, 0
            self.taken += step

    def state_dict(self) -> dict[str, Any]:
        return {"seed": self._seed, "length": self._length, "epoch": self.epoch, "taken": self.taken}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises RefusedError when the data or the seed are others: the position would mean other samples."""
        for name, mine in (("seed", self._seed), ("length", self._length)):
            if state[name] != mine:
                raise RefusedError(
                    f"the checkpoint was trained on data of {name} {state[name]} and this run's has {name} {mine}: "
                    "give the same data, or another checkpoint directory"
                )
        self.epoch, self.taken = state["epoch"], state["taken"]
