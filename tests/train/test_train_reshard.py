"""A sharded run that goes on with another number of ranks, against the same steps done by hand in one process."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from live_run import TRAIN, StartRun, progress
from nodewatch_train.signals import EXIT_DONE
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

sys.path.insert(0, str(TRAIN / "examples"))
from pretrain import Bytes, Gpt, Size, learning_rate

STEPS = 14


def by_hand(checkpoint: Path, whole: Path, *, ranks: int) -> list[float]:
    """The losses of the steps after a checkpoint: its shards put together, and the ranks' gradients averaged one by one."""
    dcp_to_torch_save(checkpoint, whole)
    state: dict[str, Any] = torch.load(whole, weights_only=True)
    model = Gpt(Size())
    model.load_state_dict(state["model"])
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.1)
    for name, parameter in model.named_parameters():
        optimizer.state[parameter] = dict(state["optimizer"]["state"][name])
    data = [Bytes(seed=0, rank=rank, batch=4, context=64) for rank in range(ranks)]
    losses = []
    for step in range(11, STEPS + 1):
        optimizer.param_groups[0]["lr"] = learning_rate(step, STEPS, 1e-3)
        total = torch.zeros(())
        for rank in data:
            rank.step = step - 1
            loss = model(rank.next()) / ranks
            loss.backward()
            total += loss.detach()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(total))
    return losses


@pytest.mark.parametrize("ranks", [1, 3])
def test_other_numbers_of_ranks_go_on_as_a_reshard_by_hand_does(
    tmp_path: Path, start_run: StartRun, ranks: int
) -> None:
    directory = tmp_path / "checkpoints"
    directory.mkdir()
    sharded = ("--steps", str(STEPS), "--parallel", "fsdp2", "--checkpoint-every", "10", "--keep-checkpoints", "9")
    slow = ("--step-seconds", "0.5")  # the save in the background ends before the failure
    first = start_run(directory, 2, *sharded, *slow, "--fail-at", "12").wait()
    assert first.codes == [1, 1]  # ended in mid-run, after the checkpoint of step 10
    assert start_run(directory, ranks, *sharded).wait().codes == [EXIT_DONE] * ranks
    resumed = progress(directory, "start")[-1]
    assert (resumed["world_size"], resumed["step"]) == (ranks, 10)
    losses = [line["loss"] for line in progress(directory, "step")][-4:]
    expected = by_hand(directory / "step-00000010", tmp_path / "whole.pt", ranks=ranks)
    # Sums in another order: 1e-5 of a loss of about five.
    assert losses == pytest.approx(expected, rel=1e-5)
