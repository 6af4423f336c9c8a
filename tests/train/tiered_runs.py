"""Runs whose checkpoints stand on their nodes, some of which are lost.

    PYTHONPATH=train python tests/train/tiered_runs.py DIR

Two directories stand for the storage of two nodes with two ranks each. Every step is saved there, and the first alone goes on
to the checkpoint directory. Prints one JSON object: for each thing that happens after step 6, from where the next start went
on, and in which steps its losses are others than those of a run that went through.
"""

import hashlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch.distributed as dist
from killed_runs import Position, forked, joined, lines, stepped, wait
from nodewatch_train import manifest
from nodewatch_train.checkpoint import Checkpointer
from nodewatch_train.progress import ProgressLog
from nodewatch_train.tiers import LocalTier

RANKS = 4
KILLED_AFTER = 6
STEPS = 9


def rank_main(rank: int, ranks: int, store: Path, root: Path, places: list[Path], until: int, killed: bool) -> None:
    model, optimizer = joined(rank, ranks, dist.FileStore(str(store), ranks), timeout=timedelta(seconds=60))
    data = Position()
    local = LocalTier(directory=places[rank * len(places) // ranks], flush_s=1e9)
    checkpointer = Checkpointer(root, model=model, optimizer=optimizer, data=data, local=local)
    log = ProgressLog(root, rank=rank, restart=0)
    done = checkpointer.resume()
    log.start(world_size=ranks, resumed_from=checkpointer.resumed_from, step=done)
    while done < until:
        loss = stepped(model, optimizer, data, rank, ranks)
        done += 1
        log.step(done, loss)
        checkpointer.begin_save(done)
        saved = checkpointer.wait()
        assert saved is not None
        (
            log.kept(saved.step, saved.seconds, 0.0)
            if saved.is_local
            else log.saved(saved.step, saved.name, saved.seconds)
        )
        while done == 1 and saved.is_local and (saved := checkpointer.finished() or saved).is_local:
            time.sleep(0.01)  # until the first save stands in the directory
    if killed:
        dist.barrier()
        os.kill(os.getpid(), signal.SIGKILL)
    checkpointer.close()
    log.done(done, None)
    dist.barrier()


def life(root: Path, places: list[Path], until: int, *, ranks: int = RANKS, killed: bool = False) -> None:
    store = root.parent / f"store-{time.monotonic_ns()}"
    work = [partial(rank_main, rank, ranks, store, root, places, until, killed) for rank in range(ranks)]
    ended = wait([forked(one) for one in work], 120)
    assert len(ended) == ranks, "the ranks hang"
    assert killed or not any(ended.values()), f"the ranks end with {list(ended.values())}"


def shares(place: Path, pattern: str) -> list[Path]:
    return sorted(place.glob(f"*/{pattern}"))


def lose(place: Path) -> None:
    shutil.rmtree(place)


def flip(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))


def processes(root: Path, places: list[Path]) -> None:
    """All processes died, and nothing else."""


def a_node(root: Path, places: list[Path]) -> None:
    lose(places[1])


def the_first_node(root: Path, places: list[Path]) -> None:
    lose(places[0])


def a_node_and_a_copy(root: Path, places: list[Path]) -> None:
    lose(places[1])
    flip(shares(places[0], f"copy-*/step-{KILLED_AFTER:08d}/*.distcp")[0])


def both_nodes(root: Path, places: list[Path]) -> None:
    for place in places:
        lose(place)


def one_share_of_each(root: Path, places: list[Path]) -> None:
    """Torn on its node and whole on the peer's: each way once."""
    for place in places:
        flip(shares(place, f"share-*/step-{KILLED_AFTER:08d}/*.distcp")[0])


def a_mixed_save(root: Path, places: list[Path]) -> None:
    """A node was away for one save: its shares are whole, and of another save of the same step."""
    for place in places:
        for directory in shares(place, f"*-1/step-{KILLED_AFTER:08d}"):
            found = manifest.verify(directory).manifest
            assert found is not None
            other = replace(found, extra={**found.extra, "save": "another"})
            (directory / "manifest.json").write_bytes(other.render())


def halfway_through_a_save(root: Path, places: list[Path]) -> None:
    """Killed after a rank had committed its share of the next save, and before the others had."""
    [mine] = shares(places[0], f"share-0/step-{KILLED_AFTER:08d}")
    shutil.copytree(mine, mine.with_name(f"step-{KILLED_AFTER + 1:08d}"))
    (mine.parent / ".tmp-7-abcdef").mkdir()


def sent_back(root: Path, places: list[Path]) -> None:
    """Another checkpoint is wanted than the newest of the directory: what is newer on the nodes is of that branch."""
    wanted = root / "step-00000001"
    tmp = manifest.begin(root, 5)
    shutil.copytree(wanted, tmp, dirs_exist_ok=True)
    (tmp / manifest.MANIFEST).unlink()
    manifest.commit(tmp, 5, world_size=RANKS)
    os.environ["NODEWATCH_RESUME_FROM"] = str(wanted)


def no_local_storage(root: Path, places: list[Path]) -> None:
    for place in places:
        lose(place)
        place.write_text("")


CASES: list[tuple[Callable[[Path, list[Path]], None], int]] = [
    (processes, RANKS),
    (a_node, RANKS),
    (the_first_node, RANKS),
    (one_share_of_each, RANKS),
    (halfway_through_a_save, RANKS),
    (a_node_and_a_copy, RANKS),
    (a_mixed_save, RANKS),
    (both_nodes, RANKS),
    (sent_back, RANKS),
    (no_local_storage, RANKS),
    (processes, 2),
    (a_node, 3),
]


def main() -> int:
    os.environ["TORCH_CPP_LOG_LEVEL"] = "FATAL"
    directory = Path(sys.argv[1])
    through = directory / "through"
    (through / "root").mkdir(parents=True)
    life(through / "root", [through / "a", through / "b"], STEPS)
    expected = {line["step"]: line for line in lines(through / "root", "step")}
    killed = directory / "killed"
    (killed / "root").mkdir(parents=True)
    life(killed / "root", [killed / "a", killed / "b"], KILLED_AFTER, killed=True)
    told: dict[str, Any] = {}
    for happens, ranks in CASES:
        name = happens.__name__ if ranks == RANKS else f"{happens.__name__}, on {ranks} ranks"
        # The directories keep their paths: a share's home is named by that of the checkpoints.
        here = directory / "here"
        shutil.copytree(killed, here)
        for place in (here / "a", here / "b"):
            [old] = place.iterdir()
            old.rename(place / home_of(here / "root"))
        os.environ.pop("NODEWATCH_RESUME_FROM", None)
        before = len(lines(here / "root", "step"))
        happens(here / "root", [here / "a", here / "b"])
        life(here / "root", [here / "a", here / "b"], STEPS, ranks=ranks)
        [_, start] = lines(here / "root", "start")
        steps = lines(here / "root", "step")[before:]
        told[name] = {
            "resumed_at": start["step"],
            "differ": [line["step"] for line in steps if line["loss_hex"] != expected[line["step"]]["loss_hex"]],
            "steps": [line["step"] for line in steps],
            "left": sorted(
                str(path.relative_to(here)).replace(home_of(here / "root"), "home")
                for place in (here / "a", here / "b")
                if place.is_dir()
                for path in place.glob("*/*/*")
            ),
            "kept": len(lines(here / "root", "kept")),
            "saved": [line["step"] for line in lines(here / "root", "saved")],
        }
        shutil.rmtree(here)
    print(json.dumps(told))
    return 0


def home_of(root: Path) -> str:
    return hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]


if __name__ == "__main__":
    sys.exit(main())
