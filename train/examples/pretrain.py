"""Pretrain a small GPT on a cluster that heals itself: under srun, under torchrun, or alone.

    srun python pretrain.py --checkpoint-dir /fsx/checkpoints/demo --steps 200 --checkpoint-every 20

Started again with the same directory it goes on from the newest checkpoint that verifies, and at the same world size it
ends with the same loss to the last bit (`loss_hex` in progress.jsonl), however often it was killed on the way.

Read it from `train` on: what a training program has to do for that stands there, in the order in which it happens.
"""

# ruff: noqa: E402 (the imports below wait for the next lines)
# The clock of a restart: torch's modules make so many objects while they load that the cycle collector would take half
# of the time. It runs again before the training starts.
import gc
import time

gc.disable()
PROCESS_BEGAN = time.monotonic()

import argparse
import contextlib
import math
import os
import random
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else matrix products on a GPU are not deterministic

import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812 (as every torch program names it)
from nodewatch_train.checkpoint import Checkpointer, Saved
from nodewatch_train.interval import Pace
from nodewatch_train.launch import Launch
from nodewatch_train.manifest import RefusedError
from nodewatch_train.progress import ProgressLog
from nodewatch_train.signals import EXIT_DONE, EXIT_REFUSED, EXIT_STOPPED, Ask, StopRequest, leave, leaving_promptly
from torch import nn


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """The model's dimensions: about 390,000 parameters."""

    vocabulary: int = 256
    context: int = 64
    width: int = 96
    heads: int = 4
    layers: int = 3


class Block(nn.Module):
    """Causal self-attention, then an MLP, each added to what came in."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.heads = size.heads
        self.before_attention = nn.LayerNorm(size.width)
        self.query_key_value = nn.Linear(size.width, 3 * size.width)
        self.attention_out = nn.Linear(size.width, size.width)
        self.before_mlp = nn.LayerNorm(size.width)
        self.mlp_in = nn.Linear(size.width, 4 * size.width)
        self.mlp_out = nn.Linear(4 * size.width, size.width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        projected = self.query_key_value(self.before_attention(x))
        q, k, v = projected.view(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.attention_out(attended.transpose(1, 2).reshape(batch, length, width))
        out: torch.Tensor = x + self.mlp_out(F.gelu(self.mlp_in(self.before_mlp(x))))
        return out


class Gpt(nn.Module):
    """Bytes in, the loss of predicting each next byte out."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.token = nn.Embedding(size.vocabulary, size.width)
        self.position = nn.Embedding(size.context, size.width)
        self.blocks = nn.ModuleList(Block(size) for _ in range(size.layers))
        self.last_norm = nn.LayerNorm(size.width)
        self.head = nn.Linear(size.width, size.vocabulary, bias=False)
        self.apply(self._initialise)

    @staticmethod
    def _initialise(module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)

    def forward(self, window: torch.Tensor) -> torch.Tensor:
        seen, expected = window[:, :-1], window[:, 1:]
        x = self.token(seen) + self.position(torch.arange(seen.shape[1], device=seen.device))
        for block in self.blocks:
            x = block(x)
        return F.cross_entropy(self.head(self.last_norm(x)).flatten(0, 1), expected.flatten())


class Bytes:
    """Made-up text: runs of bytes in arithmetic progression, one in twenty of them noise.

    A batch is a function of (seed, step, rank) and of nothing else: whoever computes it, and whenever, gets the same.
    """

    def __init__(self, *, seed: int, rank: int, batch: int, context: int) -> None:
        self.step = 0
        self._seed, self._rank, self._batch, self._context = seed, rank, batch, context

    def next(self) -> torch.Tensor:
        """The batch of the next step: byte values, (batch, context + 1)."""
        self.step += 1
        source = torch.Generator().manual_seed((self._seed * 1_000_003 + self.step) * 65_537 + self._rank)
        first = torch.randint(256, (self._batch, 1), generator=source)
        stride = torch.randint(1, 8, (self._batch, 1), generator=source)
        window = (first + stride * torch.arange(self._context + 1)) % 256
        noise = torch.rand(window.shape, generator=source) < 0.05
        return torch.where(noise, torch.randint(256, window.shape, generator=source), window)

    def state_dict(self) -> dict[str, Any]:
        return {"seed": self._seed, "step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["seed"] != self._seed:
            raise RefusedError(
                f"the checkpoint was trained on the data of seed {state['seed']} and this run has --seed {self._seed}: "
                "give the same seed, or another --checkpoint-dir"
            )
        self.step = state["step"]


def learning_rate(step: int, steps: int, highest: float) -> float:
    """Linear warm-up over the first steps, then a cosine down to a tenth. Of the step alone, so nothing to save."""
    warm_up = min(20, max(1, steps // 10))
    if step <= warm_up:
        return highest * step / warm_up
    done = (step - warm_up) / max(1, steps - warm_up)
    return highest * (0.1 + 0.45 * (1 + math.cos(math.pi * done)))


def distribute(model: Gpt, kind: str, launch: Launch) -> nn.Module:
    """The model for all ranks: replicated (ddp) or sharded (fsdp2); auto shards over several GPUs."""
    if kind == "auto":
        kind = "fsdp2" if launch.world_size > 1 and launch.device.type == "cuda" else "ddp"
    if kind == "ddp":
        return nn.parallel.DistributedDataParallel(
            model, device_ids=[launch.local_rank] if launch.device.type == "cuda" else None
        )
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(launch.device.type, (launch.world_size,))
    for block in model.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def forward_backward(model: nn.Module, data: Bytes, options: argparse.Namespace, launch: Launch) -> torch.Tensor:
    """The gradients of one optimiser step, summed over its micro-batches; returns their mean loss."""
    total = torch.zeros((), device=launch.device)
    for part in range(options.accumulate):
        last = part == options.accumulate - 1
        # The ranks need each other's gradients only once a step.
        if isinstance(model, nn.parallel.DistributedDataParallel):
            alone = contextlib.nullcontext() if last else model.no_sync()
        else:
            model.set_requires_gradient_sync(last)  # type: ignore[operator]
            alone = contextlib.nullcontext()
        with alone, torch.autocast(launch.device.type, torch.bfloat16, enabled=options.precision == "bf16"):
            loss = model(data.next().to(launch.device)) / options.accumulate
        loss.backward()
        total += loss.detach()
    return total


def train(options: argparse.Namespace, launch: Launch, stop: StopRequest) -> int:
    """Train to the last step, or until asked to stop. Returns the exit code."""
    torch.manual_seed(options.seed)  # the same initial weights on every rank
    size = Size()
    data = Bytes(seed=options.seed, rank=launch.rank, batch=options.batch, context=size.context)
    model = distribute(Gpt(size).to(launch.device), options.parallel, launch)
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.learning_rate, betas=(0.9, 0.95), weight_decay=0.1)
    checkpointer = Checkpointer(
        options.checkpoint_dir, model=model, optimizer=optimizer, data=data, keep=options.keep_checkpoints
    )
    progress = ProgressLog(options.checkpoint_dir, rank=launch.rank, restart=launch.restart)
    track = tracker(options, launch)
    pace = Pace(interval_s=options.checkpoint_seconds or None)

    # DDP lays its buckets out anew after the first backward pass, and then adds the ranks' gradients in another order.
    # So one pass that counts for nothing, or the first step after a resume would differ in the last bits from the same
    # step of a run that went through.
    model(torch.zeros(1, 2, dtype=torch.long, device=launch.device)).backward()
    optimizer.zero_grad()

    torch.manual_seed(options.seed + 1 + launch.rank)  # from here on each rank has its own random numbers
    done = checkpointer.resume()
    progress.start(world_size=launch.world_size, resumed_from=checkpointer.resumed_from, step=done)
    first = done + 1
    gc.enable()
    gc.freeze()

    def tell(saved: Saved | None) -> None:
        """A checkpoint was committed, in the background or not."""
        if saved is None:
            return
        progress.saved(saved.step, saved.name, saved.seconds, saved.held_seconds)
        stop.saved(saved.seconds)
        proposal = pace.measured(held_s=saved.held_seconds, seconds=saved.seconds)
        if launch.rank == 0 and options.checkpoint_seconds is not None:
            print(proposal.because, flush=True)

    loss_value: float | None = None
    while done < options.steps:
        began = time.monotonic()
        due = done + 1 == options.fail_at and launch.rank == options.fail_rank
        if due and (options.fail_on == "all" or launch.restart == 0):
            raise ValueError(f"rehearsed bug of the program at step {done + 1}, asked for by --fail-at")
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(done + 1, options.steps, options.learning_rate)
        loss = forward_backward(model, data, options, launch)
        optimizer.step()  # waits for a save in the background that still copies what this changes
        optimizer.zero_grad()
        done += 1
        loss_value = mean_over_ranks(loss, launch)
        tokens = options.batch * options.accumulate * size.context * launch.world_size / (time.monotonic() - began)
        progress.step(done, loss_value, tokens_per_s=round(tokens, 1))
        track(done, {"loss": loss_value, "tokens_per_s": tokens})
        if launch.rank == 0 and (done % options.print_every == 0 or done == first):
            took = f", {time.monotonic() - PROCESS_BEGAN:.1f} s after the start" if done == first else ""
            print(f"step {done}/{options.steps} loss {loss_value:.4f}{took} ({tokens:.0f} tokens/s)", flush=True)
        stop.sleep(options.step_seconds)

        tell(checkpointer.finished())
        by_steps = options.checkpoint_seconds is None and done % options.checkpoint_every == 0
        if options.checkpoint_seconds is not None and launch.rank == 0 and pace.is_due():
            stop.ask_to_save()  # one clock, rank 0's, and all ranks save at the same step
        ask = stop.agree(launch.device)
        if ask is Ask.STOP or done == options.steps:
            progress.phase("saving", done)  # training waits for this one: silence is no hung step
            with stop.saving():
                tell(checkpointer.wait())
                tell(checkpointer.save(done))
        elif ask is Ask.SAVE or by_steps:
            pace.began()
            with stop.saving():
                tell(checkpointer.wait())
                checkpointer.begin_save(done)
        if ask is Ask.STOP and done < options.steps:
            if launch.rank == 0:
                print(f"asked to stop: saved step {done}", flush=True)
            checkpointer.close()
            return EXIT_STOPPED
    progress.done(done, loss_value)
    if launch.rank == 0 and loss_value is not None:
        print(f"done: step {done} loss {loss_value:.6f} ({loss_value.hex()})", flush=True)
    checkpointer.close()
    return EXIT_DONE


def mean_over_ranks(loss: torch.Tensor, launch: Launch) -> float:
    """The loss over the global batch, the same number on every rank."""
    total = loss.detach().double()
    dist.all_reduce(total)
    return float(total.item()) / launch.world_size


def tracker(options: argparse.Namespace, launch: Launch) -> Callable[[int, Mapping[str, float]], None]:
    """Where figures go besides progress.jsonl. A resumed run goes on in the same record, which has the job's name."""
    if options.track == "none" or launch.rank != 0:
        return lambda *_: None
    name = os.environ.get("SLURM_JOB_ID") or options.checkpoint_dir.name
    try:
        if options.track == "wandb":
            import wandb

            run = wandb.init(id=f"job-{name}", resume="allow", config=vars(options))
            return lambda step, figures: run.log(dict(figures), step=step)
        import mlflow
    except ImportError as error:
        raise RefusedError(
            f"--track {options.track} needs the library {error.name}: install it, or leave --track out"
        ) from error
    found = mlflow.search_runs(filter_string=f"tags.nodewatch = '{name}'", output_format="list")
    mlflow.start_run(run_id=found[0].info.run_id if found else None, tags={"nodewatch": name})
    return lambda step, figures: mlflow.log_metrics(dict(figures), step=step)


def parse(arguments: list[str]) -> argparse.Namespace:
    def at_least(least: float, kind: Callable[[str], Any]) -> Callable[[str], Any]:
        def number(text: str) -> Any:
            value = kind(text)
            if not value >= least:
                raise argparse.ArgumentTypeError(f"{text} is below {least}")
            return value

        return number

    def seconds_or_auto(text: str) -> float:
        return 0.0 if text == "auto" else at_least(0.001, float)(text)  # type: ignore[no-any-return]

    parser = argparse.ArgumentParser(description="Pretrain a small GPT that survives its cluster's failures.")
    add = parser.add_argument
    add("--checkpoint-dir", type=Path, required=True, help="where checkpoints and progress.jsonl go; must exist")
    add("--steps", type=at_least(1, int), default=200, help="optimiser steps in all, over all restarts")
    add("--checkpoint-every", type=at_least(1, int), default=20, metavar="STEPS")
    add(
        "--checkpoint-seconds",
        type=seconds_or_auto,
        metavar="SECONDS|auto",
        help="by time instead of steps; auto weighs what a save costs against NODEWATCH_MTBF_S",
    )
    add("--keep-checkpoints", type=at_least(1, int), default=3, metavar="N", help="verified checkpoints that stay")
    add("--step-seconds", type=at_least(0, float), default=0.0, help="pause after each step: paces a small demo")
    add("--batch", type=at_least(1, int), default=4, help="sequences a rank and step")
    add("--learning-rate", type=at_least(0, float), default=1e-3)
    add("--seed", type=at_least(0, int), default=0, help="of the weights and the data")
    add("--accumulate", type=at_least(1, int), default=1, metavar="N", help="micro-batches a step")
    add(
        "--parallel",
        choices=["auto", "ddp", "fsdp2"],
        default="auto",
        help="auto: fsdp2 over several GPUs, ddp otherwise",
    )
    add("--precision", choices=["fp32", "bf16"], default="bf16" if torch.cuda.is_available() else "fp32")
    add("--track", choices=["none", "wandb", "mlflow"], default="none", help="where loss and throughput go as well")
    add("--timeout-seconds", type=at_least(1, float), default=30.0, help="longest wait for a peer")
    add("--print-every", type=at_least(1, int), default=10, metavar="STEPS")
    add("--fail-at", type=at_least(1, int), metavar="STEP", help="raise an exception there: rehearses a user's bug")
    add("--fail-on", choices=["all", "first"], default="all", help="raise it at every start, or at the first only")
    add("--fail-rank", type=at_least(0, int), default=0, help="the rank that raises it")
    return parser.parse_args(arguments)


def main() -> None:
    options = parse(sys.argv[1:])
    try:
        launch = Launch.from_environment(os.environ, gpus=torch.cuda.device_count())
    except RefusedError as error:
        leave(EXIT_REFUSED, str(error))
    stop = StopRequest()
    with leaving_promptly(rank=launch.rank, restart=launch.restart, failures=options.checkpoint_dir):
        random.seed(options.seed)
        torch.use_deterministic_algorithms(True)
        if launch.device.type == "cpu":
            torch.set_num_threads(1)  # sums split over threads would differ between machines
        else:
            torch.cuda.set_device(launch.device)
        launch.export(os.environ)
        backend = "nccl" if launch.device.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=timedelta(seconds=options.timeout_seconds))
        code = train(options, launch, stop)
        # All ranks get here alive; rank 0, which keeps the store, must not leave while another still needs it.
        with contextlib.suppress(RuntimeError):
            dist.barrier()
        leave(code)


if __name__ == "__main__":
    main()
