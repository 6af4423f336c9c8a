"""Kills the ranks of a small run at random moments, over and over, and looks at what each resume makes of it.

    PYTHONPATH=train python tests/train/killed_runs.py --kills 200 --directory DIR

Ranks are forked from a process that has torch loaded: a life then takes a fraction of a second, and not the seconds of an
import. Prints one JSON object; the exit code is 1 when anything was not as it must be.
"""

import argparse
import json
import os
import random
import shutil
import signal
import socket
import sys
import time
import traceback
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from nodewatch_train import manifest, storage  # noqa: F401 (loaded before the ranks are forked)
from nodewatch_train.checkpoint import Checkpointer
from nodewatch_train.progress import ProgressLog
from nodewatch_train.signals import is_peer_loss
from torch import nn
from torch.distributed.checkpoint import state_dict, state_dict_loader, state_dict_saver  # noqa: F401

RANKS = 2
STEPS = 14
EVERY = 2
WIDTH = 160


class Position:
    def __init__(self) -> None:
        self.step = 0

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step = state["step"]


def rank_main(rank: int, port: int, directory: Path) -> None:
    """One rank's life: resume, train, save in the background."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    store = dist.TCPStore("127.0.0.1", port, RANKS, is_master=rank == 0, timeout=timedelta(seconds=20))
    dist.init_process_group("gloo", store=store, rank=rank, world_size=RANKS, timeout=timedelta(seconds=20))
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Dropout(0.1), nn.Linear(WIDTH, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    data = Position()
    torch.manual_seed(1 + rank)
    checkpointer = Checkpointer(directory, model=model, optimizer=optimizer, data=data)
    log = ProgressLog(directory, rank=rank, restart=0)
    done = checkpointer.resume()
    log.start(world_size=RANKS, resumed_from=checkpointer.resumed_from, step=done)
    while done < STEPS:
        data.step += 1
        x = torch.randn(16, WIDTH, generator=torch.Generator().manual_seed(data.step * RANKS + rank))
        loss = model(x).square().mean()
        loss.backward()
        for parameter in model.parameters():
            assert parameter.grad is not None
            dist.all_reduce(parameter.grad)
        optimizer.step()
        optimizer.zero_grad()
        done += 1
        log.step(done, float(loss.detach()))
        time.sleep(0.005)
        saved = checkpointer.finished()
        if saved is not None:
            log.saved(saved.step, saved.name, saved.seconds)
        if done % EVERY == 0:
            checkpointer.begin_save(done)
    checkpointer.close()
    log.done(done, None)
    if rank == 0:
        time.sleep(0.02)  # it keeps the store


def start(directory: Path) -> list[int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(RANKS):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                rank_main(rank, port, directory)
                code = 0
            except BaseException as error:
                if not is_peer_loss(error):
                    traceback.print_exc()
                    code = 2
            finally:
                os._exit(code)
        children.append(child)
    return children


def wait(children: list[int], seconds: float) -> dict[int, int]:
    """The wait status of those that ended in time."""
    ended: dict[int, int] = {}
    end = time.monotonic() + seconds
    while len(ended) < len(children) and time.monotonic() < end:
        for child in children:
            if child not in ended and os.waitpid(child, os.WNOHANG)[0]:
                ended[child] = 0
        time.sleep(0.002)
    return ended


def until_started(directory: Path, before: int) -> None:
    end = time.monotonic() + 20
    while len(lines(directory, "start")) == before and time.monotonic() < end:
        time.sleep(0.002)


def kill(children: list[int]) -> None:
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def lines(directory: Path, event: str) -> list[dict[str, Any]]:
    path = directory / "progress.jsonl"
    text = path.read_text() if path.exists() else ""
    found = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n") and line[0] == "{"]
    return [line for line in found if line["event"] == event]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    os.environ["TORCH_CPP_LOG_LEVEL"] = "FATAL"  # each killed peer would be forty lines
    chance = random.Random(options.seed)
    options.directory.mkdir(parents=True, exist_ok=True)

    through = options.directory / "through"
    through.mkdir()
    children = start(through)
    assert len(wait(children, 60)) == RANKS
    [done] = lines(through, "done")
    training = done["t"] - lines(through, "start")[0]["t"]
    expected = {line["step"]: line["loss_hex"] for line in lines(through, "step")}

    faults: list[str] = []
    kills = runs = resumed = torn = 0
    while kills < options.kills:
        directory = options.directory / f"run-{runs}"
        directory.mkdir()
        while not lines(directory, "done"):
            newest, skipped = manifest.newest_verified(directory)
            torn += len(skipped)
            told = max((line["step"] for line in lines(directory, "saved")), default=0)
            at = 0 if newest is None else manifest.step_of(newest)
            if at < told:
                faults.append(f"{directory}: step {told} was told to be saved, and {at} is the newest that verifies")
            starts = len(lines(directory, "start"))
            children = start(directory)
            victims = chance.choice([[0], [1], [0, 1]])
            if kills >= options.kills:
                ended = wait(children, 60)
            else:
                if (
                    chance.random() < 0.8
                ):  # most of them while it trains and writes, the others while it starts and loads
                    until_started(directory, starts)
                ended = wait(children, chance.uniform(0.0, training))
            alive = [child for child in children if child not in ended]
            if alive:
                kills += 1
                first = [children[victim] for victim in victims if children[victim] in alive]
                kill(first)
                # As srun does when a rank is lost, some time later: meanwhile the others may go on writing.
                rest = [child for child in alive if child not in first]
                kill([child for child in rest if child not in wait(rest, chance.uniform(0.0, 0.1))])
            begun = lines(directory, "start")[starts:]
            if begun and begun[0]["step"] != at:
                faults.append(f"{directory}: resumed at step {begun[0]['step']}, and {at} was the newest that verifies")
            resumed += bool(begun and begun[0]["step"])
        # Every step that was done, and those that were done again.
        others = [line["step"] for line in lines(directory, "step") if line["loss_hex"] != expected[line["step"]]]
        if others:
            faults.append(f"{directory}: steps {others} have other losses than in the uninterrupted run")
        if {line["step"] for line in lines(directory, "step")} != set(expected):
            faults.append(f"{directory}: steps are missing")
        if not faults:
            shutil.rmtree(directory)
        runs += 1
    figures = {
        "kills": kills,
        "runs": runs,
        "resumed": resumed,
        "torn": torn,
        "faults": faults,
        "loss_hex": expected[STEPS],
    }
    print(json.dumps(figures))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
