"""What the ranks do together: one result for all of them, or one CheckpointError for all of them.

A rank that failed on its own would leave the others waiting inside a collective.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch.distributed as dist

from nodewatch_train.manifest import CheckpointError

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Together:
    """All ranks of a run, or a process alone. One thread at a time speaks through one of these."""

    rank: int
    world_size: int
    group: Any

    @classmethod
    def made(cls, timeout: timedelta) -> "Together":
        """A group of its own. A collective, after init_process_group or without any.

        On the default group a long verification on rank 0 would time the waiting ranks out, NCCL carries no Python objects, and
        what goes on in the background must not mix with the training's collectives.
        """
        if not dist.is_initialized():
            return cls(rank=0, world_size=1, group=None)
        return cls(
            rank=dist.get_rank(),
            world_size=dist.get_world_size(),
            group=dist.new_group(backend="gloo", timeout=timeout),
        )

    def gather(self, mine: Any) -> list[Any]:
        """What each rank has, by rank."""
        if self.group is None:
            return [mine]
        shares: list[Any] = [None] * self.world_size
        dist.all_gather_object(shares, mine, group=self.group)
        return shares

    def agree(self, failed: CheckpointError | None) -> None:
        """Raise on every rank what any of them failed with."""
        for error in self.gather(failed):
            if error is not None:
                raise error

    def each(self, work: Callable[[], _T]) -> list[_T]:
        """Do `work` on every rank and return all results, or raise any rank's CheckpointError on every rank."""
        try:
            mine: Any = work()
        except CheckpointError as error:
            mine = error
        shares = self.gather(mine)
        for share in shares:
            if isinstance(share, CheckpointError):
                raise share
        return shares

    def on_rank_0(self, work: Callable[[], _T]) -> _T:
        """Do `work` on rank 0 and return its result on every rank, or raise its CheckpointError on every rank."""
        outcome: list[Any] = [None]
        if self.rank == 0:
            try:
                outcome = [work()]
            except CheckpointError as error:
                outcome = [error]
        if self.group is not None:
            dist.broadcast_object_list(outcome, src=0, group=self.group)
        result = outcome[0]
        if isinstance(result, CheckpointError):
            raise result
        return result  # type: ignore[no-any-return]
