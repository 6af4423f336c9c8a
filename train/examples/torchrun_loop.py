"""The least that a plain loop needs: torchrun --nproc-per-node 2 torchrun_loop.py DIRECTORY [STEPS]."""

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from nodewatch_train.data import ExactlyOnce
from nodewatch_train.loop import Loop
from nodewatch_train.signals import leave, leaving_promptly
from torch import nn


def main() -> None:
    directory, steps = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 100
    rank, ranks = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    with leaving_promptly(rank=rank, restart=0, failures=directory):
        dist.init_process_group(
            "gloo", init_method=None if "RANK" in os.environ else "tcp://127.0.0.1:0", rank=rank, world_size=ranks
        )
        torch.manual_seed(0)
        model = nn.parallel.DistributedDataParallel(nn.Linear(8, 1))
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        numbers = torch.randn(1000, 8, generator=torch.Generator().manual_seed(1))
        sampler = ExactlyOnce(len(numbers), batch=4, rank=rank, world_size=ranks)

        loop = Loop(directory, model=model, optimizer=optimizer, data=sampler, also={"schedule": schedule}, every=10)
        batches = None
        for _ in loop.steps(steps):
            batches = batches or iter(sampler)  # made after the resume, which says where it begins
            x = numbers[next(batches)]
            loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
            loss.backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            sampler.took()
            loop.report(float(loss.detach()))
        dist.barrier()
        leave(0)


if __name__ == "__main__":
    main()
