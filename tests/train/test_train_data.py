"""Each sample once, over interruptions and other numbers of ranks."""

from itertools import islice

import pytest
import torch
from nodewatch_train.data import ExactlyOnce
from nodewatch_train.manifest import RefusedError
from torch.utils.data import DataLoader


def samplers(world_size: int, *, batch: int = 2, length: int = 49) -> list[ExactlyOnce]:
    return [ExactlyOnce(length, batch=batch, rank=rank, world_size=world_size, seed=7) for rank in range(world_size)]


def run(ranks: list[ExactlyOnce], steps: int) -> list[int]:
    seen: list[int] = []
    iterators = [iter(rank) for rank in ranks]
    for _ in range(steps):
        for iterator in iterators:
            seen += next(iterator)
        for rank in ranks:
            rank.took()
    return seen


def test_an_epoch_takes_each_sample_at_most_once_whatever_becomes_of_the_ranks() -> None:
    three = samplers(3)
    seen = run(three, 3)  # 18 samples, then the job goes on with two ranks, then with one
    two = samplers(2)
    for sampler in two:
        sampler.load_state_dict(three[0].state_dict())
    seen += run(two, 4)
    [one] = samplers(1)
    one.load_state_dict(two[1].state_dict())
    seen += run([one], 7)
    assert one.state_dict() == {"seed": 7, "length": 49, "epoch": 0, "taken": 48}
    assert len(seen) == len(set(seen)) == 48
    assert run([one], 1) != []
    assert one.epoch == 1


def test_an_interrupted_run_sees_what_an_uninterrupted_one_does() -> None:
    through = run(samplers(2), 30)
    first = samplers(2)
    seen = run(first, 17)
    again = samplers(2)
    for sampler in again:
        sampler.load_state_dict(first[0].state_dict())
    assert seen + run(again, 13) == through


def test_what_the_loader_fetched_ahead_is_not_counted() -> None:
    [sampler] = samplers(1)
    loader = DataLoader(torch.arange(49), batch_sampler=sampler, num_workers=0)  # type: ignore[arg-type]
    used = []
    for batch in islice(loader, 5):
        used.append(batch.tolist())
        sampler.took()
    ahead = list(islice(loader, 3))
    assert len(ahead) == 3
    [again] = samplers(1)
    again.load_state_dict(sampler.state_dict())
    assert again.taken == 10
    assert next(iter(again)) == ahead[0].tolist()


def test_other_data_is_refused() -> None:
    [sampler] = samplers(1)
    with pytest.raises(RefusedError, match="data of length 50 and this run's has length 49"):
        sampler.load_state_dict({"seed": 7, "length": 50, "epoch": 0, "taken": 0})
    with pytest.raises(RefusedError, match="3 samples are fewer than one step takes"):
        ExactlyOnce(3, batch=2, rank=0, world_size=2)
