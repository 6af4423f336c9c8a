"""Kills the ranks of a small sharded run at random moments, over and over, and looks at what each resume makes of it.

    PYTHONPATH=train python tests/train/killed_runs.py --kills 200 --directory DIR

Four ranks stand for two nodes of two. By turns a rank is killed, a node with all its ranks, all of them, and a rank halfway
through a write to a checkpoint's file. Some runs go on with another number of ranks, beside the same steps done by hand in
one process. Ranks are forked from a process that has torch loaded: a life then takes a second or two, without the seconds of
an import. Prints one JSON object; the exit code is 1 when anything was not as it must be.
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
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # the first optimiser imports it: two seconds in each rank otherwise
import torch.distributed as dist
from nodewatch_train import manifest, storage  # noqa: F401 (loaded before the ranks are forked)
from nodewatch_train.checkpoint import Checkpointer
from nodewatch_train.progress import ProgressLog
from nodewatch_train.randomness import random_state, set_random_state
from nodewatch_train.signals import is_peer_loss
from torch import nn
from torch.distributed.checkpoint import state_dict, state_dict_loader, state_dict_saver  # noqa: F401
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

RANKS = 4
NODES = ([0, 1], [2, 3])
OTHER_RANKS = (1, 2, 3)
STEPS = 14
EVERY = 2
WIDTH = 160
KINDS = ("rank", "node", "all", "writer")
TOLERANCE = 1e-5
"""Of a loss after another number of ranks added in another order, for its share."""


class Position:
    def __init__(self) -> None:
        self.step = 0

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step = state["step"]


def parts() -> tuple[nn.Sequential, torch.optim.AdamW]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Dropout(0.1), nn.Linear(WIDTH, 1))
    return model, torch.optim.AdamW(model.parameters(), lr=0.01)


def batch(step: int, rank: int, ranks: int) -> torch.Tensor:
    return torch.randn(16, WIDTH, generator=torch.Generator().manual_seed(step * ranks + rank))


def joined(rank: int, ranks: int, store: dist.Store, *, timeout: timedelta) -> tuple[nn.Sequential, torch.optim.AdamW]:
    """This process as one rank of the sharded run: its part of the model, with its own random numbers."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=ranks, timeout=timeout)
    model, _ = parts()
    fully_shard(model, mesh=init_device_mesh("cpu", (ranks,)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    torch.manual_seed(1 + rank)
    return model, optimizer


def stepped(model: nn.Sequential, optimizer: torch.optim.AdamW, data: Position, rank: int, ranks: int) -> float:
    """One step on the next batch; its loss."""
    data.step += 1
    loss = model(batch(data.step, rank, ranks)).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return float(loss.detach())


def die_in_write(number: int) -> None:
    """At the so-many-th write to a checkpoint's file, half of it is written and the process is gone."""
    whole = os.pwrite
    left = [number]

    def pwrite(descriptor: int, data: Any, offset: int) -> int:
        if isinstance(data, memoryview):  # the lock and the heartbeat write bytes
            left[0] -= 1
            if left[0] == 0:
                whole(descriptor, data[: len(data) // 2], offset)
                os.kill(os.getpid(), signal.SIGKILL)
        return whole(descriptor, data, offset)

    os.pwrite = pwrite


def rank_main(rank: int, ranks: int, port: int, directory: Path) -> None:
    """One rank's life: resume, train, save in the background."""
    store = dist.TCPStore("127.0.0.1", port, ranks, is_master=rank == 0, timeout=timedelta(seconds=40))
    model, optimizer = joined(rank, ranks, store, timeout=timedelta(seconds=40))
    data = Position()
    checkpointer = Checkpointer(directory, model=model, optimizer=optimizer, data=data)
    log = ProgressLog(directory, rank=rank, restart=0)
    done = checkpointer.resume()
    log.start(world_size=ranks, resumed_from=checkpointer.resumed_from, step=done)
    while done < STEPS:
        loss = stepped(model, optimizer, data, rank, ranks)
        done += 1
        log.step(done, loss)
        time.sleep(0.005)
        saved = checkpointer.finished()
        if saved is not None:
            log.saved(saved.step, saved.name, saved.seconds)
        if done % EVERY == 0:
            checkpointer.begin_save(done)
    checkpointer.close()
    log.done(done, None)
    if rank == 0:
        time.sleep(0.05)  # it keeps the store


def by_hand(checkpoint: Path, at: int, ranks: int, into: Path) -> None:
    """The losses of rank 0 after a checkpoint: its shards put together, and so many ranks' gradients averaged one by one."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dcp_to_torch_save(checkpoint, into.with_suffix(".pt"))
    state: dict[str, Any] = torch.load(into.with_suffix(".pt"), weights_only=True)
    model, optimizer = parts()
    model.load_state_dict(state["model"])
    for name, parameter in model.named_parameters():
        optimizer.state[parameter] = dict(state["optimizer"]["state"][name])
    random_states = [state[f"random-{rank}"] for rank in range(ranks)]
    losses = {}
    for step in range(at + 1, STEPS + 1):
        for rank in range(ranks):
            set_random_state(random_states[rank])
            loss = model(batch(step, rank, ranks)).square().mean()
            (loss / ranks).backward()
            random_states[rank] = random_state()
            if rank == 0:
                losses[step] = float(loss.detach())
        optimizer.step()
        optimizer.zero_grad()
    into.write_text(json.dumps(losses))


def forked(work: Callable[[], object]) -> int:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException as error:
            if not is_peer_loss(error):
                traceback.print_exc()
                code = 2
        finally:
            os._exit(code)
    return child


def start(directory: Path, ranks: int = RANKS, dying: int | None = None, at_write: int = 0) -> list[int]:
    """The ranks of one life; `dying` is killed by its own write of that number."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def life(rank: int) -> None:
        if rank == dying:
            die_in_write(at_write)
        rank_main(rank, ranks, port, directory)

    return [forked(partial(life, rank)) for rank in range(ranks)]


def wait(children: list[int], seconds: float) -> dict[int, int]:
    """The wait status of those that ended in time."""
    ended: dict[int, int] = {}
    end = time.monotonic() + seconds
    while True:
        for child in children:
            if child not in ended:
                found, status = os.waitpid(child, os.WNOHANG)
                if found:
                    ended[child] = status
        if len(ended) == len(children) or time.monotonic() >= end:
            return ended
        time.sleep(0.002)


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


class Trial:
    """Runs that are killed until enough kills were made, and what was wrong with any."""

    def __init__(self, directory: Path, kills: int, chance: random.Random) -> None:
        self.root, self.wanted, self.chance = directory, kills, chance
        self.faults: list[str] = []
        self.kills = dict.fromkeys(KINDS, 0)
        self.runs = self.resumed = self.torn = self.half_written = self.resharded = 0
        self.worst = 0.0
        through = directory / "through"
        through.mkdir(parents=True)
        assert len(wait(start(through), 60)) == RANKS
        [done] = lines(through, "done")
        self.training = done["t"] - lines(through, "start")[0]["t"]
        self.expected = {line["step"]: line["loss_hex"] for line in lines(through, "step")}

    @property
    def total(self) -> int:
        return sum(self.kills.values())

    def run(self) -> None:
        """One run, from nothing to its last step."""
        directory = self.root / f"run-{self.runs}"
        directory.mkdir()
        self.runs += 1
        ranks, since = RANKS, 0
        hand: Path | None = None
        while not lines(directory, "done"):
            at = self._newest(directory)
            if self.chance.random() < 0.25 and 0 < at < STEPS:
                ranks = self.chance.choice(OTHER_RANKS)
                hand = self._begin_by_hand(directory, at, ranks)
                since = len(lines(directory, "step"))
            self._life(directory, at, ranks)
        steps = lines(directory, "step")
        # Every step that was done, and those that were done again.
        own = steps if hand is None else steps[:since]
        others = [line["step"] for line in own if line["loss_hex"] != self.expected[line["step"]]]
        if others:
            self.faults.append(f"{directory}: steps {others} have other losses than in the uninterrupted run")
        if {line["step"] for line in steps} != set(self.expected):
            self.faults.append(f"{directory}: steps are missing")
        if hand is not None:
            self._compare(directory, hand, steps[since:])
        if not self.faults:
            shutil.rmtree(directory)

    def _newest(self, directory: Path) -> int:
        """The step of what the next life must resume from."""
        newest, skipped = manifest.newest_verified(directory)
        self.torn += len(skipped)
        told = max((line["step"] for line in lines(directory, "saved")), default=0)
        at = 0 if newest is None else manifest.step_of(newest)
        if at < told:
            self.faults.append(f"{directory}: step {told} was told to be saved, and {at} is the newest that verifies")
        return at

    def _life(self, directory: Path, at: int, ranks: int) -> None:
        starts = len(lines(directory, "start"))
        kind = self.chance.choice(KINDS) if self.total < self.wanted and ranks == RANKS else ""
        dying = self.chance.randrange(ranks)
        if kind == "writer":
            children = start(directory, ranks, dying, self.chance.randint(1, 12))
            ended = self._until_one_ends(children)
        else:
            children = start(directory, ranks)
            if kind and self.chance.random() < 0.8:
                until_started(directory, starts)  # while it trains and writes, and not while it starts and loads
            ended = wait(children, self.chance.uniform(0.0, self.training) if kind else 60)
        alive = [child for child in children if child not in ended]
        died = any(os.WIFSIGNALED(status) for status in ended.values())
        if not kind and alive:
            self.faults.append(f"{directory}: the ranks hang")
        if (alive and kind != "writer") or died:
            self.kills[kind] += 1
        if kind == "writer" and died:
            self.half_written += any(directory.glob(".tmp-*/*.distcp"))
        victims = {"rank": [dying], "node": self.chance.choice(NODES), "all": range(ranks)}.get(kind, ())
        first = [children[victim] for victim in victims if children[victim] in alive]
        kill(first)
        # As srun does when a rank is lost, some time later: meanwhile the others may go on writing.
        rest = [child for child in alive if child not in first]
        gone = wait(rest, self.chance.uniform(0.0, 0.1))
        kill([child for child in rest if child not in gone])
        begun = lines(directory, "start")[starts:]
        if begun and begun[0]["step"] != at:
            self.faults.append(f"{directory}: resumed at {begun[0]['step']}, and {at} was the newest that verifies")
        self.resumed += bool(begun and begun[0]["step"])

    def _until_one_ends(self, children: list[int]) -> dict[int, int]:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            if ended := wait(children, 0.0):
                return ended
            time.sleep(0.002)
        return {}

    def _begin_by_hand(self, directory: Path, at: int, ranks: int) -> Path:
        into = directory / f"by-hand-{ranks}.json"
        checkpoint = directory / f"step-{at:08d}"
        assert len(wait([forked(partial(by_hand, checkpoint, at, ranks, into))], 60)) == 1
        return into

    def _compare(self, directory: Path, hand: Path, steps: list[dict[str, Any]]) -> None:
        self.resharded += 1
        expected = {int(step): loss for step, loss in json.loads(hand.read_text()).items()}
        for line in steps:
            off = abs(line["loss"] - expected[line["step"]]) / abs(expected[line["step"]])
            self.worst = max(self.worst, off)
            if off > TOLERANCE:
                self.faults.append(
                    f"{directory}: step {line['step']} is {off:.1e} off the one that was resharded by hand"
                )

    def figures(self) -> dict[str, Any]:
        return {
            "kills": self.total,
            "by_kind": self.kills,
            "writers_killed_with_a_half_written_file": self.half_written,
            "runs": self.runs,
            "resumed": self.resumed,
            "torn": self.torn,
            "resharded": self.resharded,
            "worst_share_off_by_hand": self.worst,
            "faults": self.faults,
            "loss_hex": self.expected[STEPS],
        }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    os.environ["TORCH_CPP_LOG_LEVEL"] = "FATAL"  # each killed peer would be forty lines
    trial = Trial(options.directory, options.kills, random.Random(options.seed))
    while trial.total < options.kills:
        trial.run()
    print(json.dumps(trial.figures()))
    return 1 if trial.faults else 0


if __name__ == "__main__":
    sys.exit(main())
