"""Saving and resuming a distributed run: torch.distributed.checkpoint for the tensors, `manifest` for the trust.

Every rank takes part: each writes its share, flushes and hashes it; rank 0 commits once all have. A checkpoint holds
the model, the optimiser, the step, the position in the data, and each rank's random state.
"""

import hashlib
import json
import os
import random
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
import torch.distributed as dist

from nodewatch_train import manifest
from nodewatch_train.manifest import CheckpointError, FileEntry, Manifest, RefusedError

RESUME_FROM = "NODEWATCH_RESUME_FROM"
"""Environment variable: the checkpoint that the controller verified for this start."""

_T = TypeVar("_T")


class DataPosition(Protocol):
    """Where the run stands in its data: the same on every rank. The state must be JSON values."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """A committed checkpoint: the name of its directory, and how long the save took."""

    name: str
    seconds: float


class Checkpointer:
    """Saves a run into one directory, and resumes it from the newest checkpoint there that verifies.

    Made on every rank, after init_process_group (or without any, for a single process). `keep` is how many verified
    checkpoints stay. `io_timeout` bounds a save or a verification, which on a large model takes far longer than a
    step's collectives may.
    """

    def __init__(
        self,
        root: Path,
        *,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        data: DataPosition,
        keep: int = 3,
        io_timeout: timedelta = timedelta(minutes=30),
    ) -> None:
        self.resumed_from: str | None = None
        """The name of the checkpoint that `resume` loaded; None when it started from scratch."""
        self._root = root
        self._model = model
        self._optimizer = optimizer
        self._data = data
        self._keep = keep
        self._trusted: set[str] = set()
        self._fingerprint = fingerprint(model)
        self._rank = dist.get_rank() if dist.is_initialized() else 0
        self._world_size = dist.get_world_size() if dist.is_initialized() else 1
        # A group of its own: on the default one a long verification on rank 0 would time the waiting ranks out, and
        # NCCL carries no Python objects.
        self._group = dist.new_group(backend="gloo", timeout=io_timeout) if dist.is_initialized() else None

    def resume(self) -> int:
        """Load the newest verified checkpoint, on every rank, and return the number of steps completed (0: none).

        NODEWATCH_RESUME_FROM is preferred when it verifies. What was skipped is said on standard error, a sentence
        each. Raises CheckpointError when the directory cannot be used, RefusedError when it belongs to another model.
        """
        chosen = self._on_rank_0(self._choose)
        if chosen is None:
            return 0
        path, found = chosen
        self._load(path, found)
        self.resumed_from = path.name
        self._trusted.add(path.name)
        return found.step

    def save(self, step: int) -> Saved:
        """Save the run after `step` completed steps, on every rank, and prune the old checkpoints.

        Raises CheckpointError on every rank when any of them could not write.
        """
        began = time.monotonic()
        tmp = self._on_rank_0(lambda: manifest.begin(self._root, step))
        described = self._write(tmp)

        def commit() -> str:
            extra = {"model": self._fingerprint, "data": self._data.state_dict()}
            done = manifest.commit(tmp, step, world_size=self._world_size, extra=extra, described=described)
            self._trusted.add(done.name)
            manifest.prune(self._root, self._keep, trusted=self._trusted, up_to=step)
            return done.name

        name = self._on_rank_0(commit)
        return Saved(name=name, seconds=time.monotonic() - began)

    def _choose(self) -> tuple[Path, Manifest] | None:
        """On rank 0: the checkpoint to load, and what it holds."""
        manifest.check_directory(self._root)
        manifest.sweep(self._root)
        wanted = os.environ.get(RESUME_FROM)
        if wanted:
            # Resolved, so that a path with a trailing slash or through a link has the name that verify looks at.
            path = Path(wanted).resolve()
            verification = manifest.verify(path)
            found = verification.manifest
            if found is not None and found.extra.get("model") == self._fingerprint:
                newer = [
                    other.name for other in manifest.checkpoints(self._root) if manifest.step_of(other) > found.step
                ]
                if newer:
                    _say(f"{RESUME_FROM} asks for {path.name}: {', '.join(newer)} in {self._root} are passed over")
                return path, found
            reason = verification.reason or f"{path.name} is a checkpoint of another model"
            _say(f"{RESUME_FROM} is not used: {reason}; looking for the newest verified checkpoint in {self._root}")
        newest, skipped = manifest.newest_verified(self._root)
        for sentence in skipped:
            _say(sentence)
        if newest is None:
            if skipped:
                _say(f"no checkpoint in {self._root} verifies: starting from step 0")
            return None
        found = manifest.verify(newest, checksums=False).manifest
        if found is None:
            raise CheckpointError(f"{newest} changed while it was being read: is another job writing to {self._root}?")
        if found.extra.get("model") != self._fingerprint:
            raise RefusedError(
                f"{newest} holds another model than this run's (their parameters differ in name, shape or type): "
                "use another checkpoint directory, or the configuration that wrote this one"
            )
        return newest, found

    def _write(self, tmp: Path) -> dict[str, FileEntry]:
        """Write, flush and hash this rank's share; on rank 0, what all ranks wrote. Returns after all have."""
        # Imported late: it costs start-up time, and a run must reach its first step before its first save.
        from torch.distributed.checkpoint.api import CheckpointException
        from torch.distributed.checkpoint.state_dict_saver import save

        try:
            save(self._state(), checkpoint_id=tmp, process_group=self._group, no_dist=self._group is None)
        except (CheckpointException, OSError) as error:
            raise CheckpointError(f"cannot write checkpoint {tmp} ({_free(tmp)}): {_cause(error)}") from error
        # DCP names a rank's files __<rank>_<number>.distcp. What it leaves out (.metadata) commit describes itself.
        mine: dict[str, FileEntry] | CheckpointError
        try:
            mine = {path.name: manifest.describe(path) for path in sorted(tmp.glob(f"__{self._rank}_*"))}
        except CheckpointError as error:
            mine = error  # said to the others, who would wait for us otherwise
        if self._group is None:
            shares: list[Any] = [mine]
        else:
            shares = [None] * self._world_size
            dist.all_gather_object(shares, mine, group=self._group)
        for share in shares:
            if isinstance(share, CheckpointError):
                raise share
        return {name: entry for share in shares for name, entry in share.items()}

    def _load(self, path: Path, found: Manifest) -> None:
        from torch.distributed.checkpoint.api import CheckpointException
        from torch.distributed.checkpoint.state_dict import set_state_dict
        from torch.distributed.checkpoint.state_dict_loader import load

        state = self._state()
        if self._rank >= found.world_size:
            del state[_random_key(self._rank)]  # a rank that did not exist then keeps the seed it was started with
        try:
            load(state, checkpoint_id=path, process_group=self._group, no_dist=self._group is None)
        except (CheckpointException, OSError) as error:
            raise CheckpointError(f"cannot load checkpoint {path}, though it verified: {_cause(error)}") from error
        set_state_dict(
            self._model,
            self._optimizer,
            model_state_dict=state["model"],
            optim_state_dict=state["optimizer"],
        )
        self._data.load_state_dict(found.extra["data"])
        if _random_key(self._rank) in state:
            _set_random_state(state[_random_key(self._rank)])

    def _state(self) -> dict[str, Any]:
        from torch.distributed.checkpoint.state_dict import get_state_dict

        model, optimizer = get_state_dict(self._model, self._optimizer)
        return {
            "model": model,
            "optimizer": optimizer,
            _random_key(self._rank): _random_state(),
        }

    def _on_rank_0(self, work: Callable[[], _T]) -> _T:
        """Do `work` on rank 0 and return its result on every rank, or raise its CheckpointError on every rank."""
        outcome: list[Any] = [None]
        if self._rank == 0:
            try:
                outcome = [work()]
            except CheckpointError as error:
                outcome = [error]
        if self._group is not None:
            dist.broadcast_object_list(outcome, src=0, group=self._group)
        result = outcome[0]
        if isinstance(result, CheckpointError):
            raise result
        return result  # type: ignore[no-any-return]


def fingerprint(model: torch.nn.Module) -> str:
    """The same string for models whose parameters and buffers agree in name, global shape and type, wrapped or not."""
    lines = [
        f"{name.removeprefix('module.')} {tuple(tensor.shape)} {tensor.dtype}"
        for name, tensor in sorted([*model.named_parameters(), *model.named_buffers()], key=lambda pair: pair[0])
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _random_key(rank: int) -> str:
    return f"random-{rank}"


def _random_state() -> str:
    """This rank's random state as one string: DCP would take a dict apart, and demand the same keys at the load."""
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    return json.dumps(
        {
            "python": random.getstate(),
            "torch": bytes(torch.get_rng_state().tolist()).hex(),
            "cuda": None if cuda is None else bytes(cuda.tolist()).hex(),
        }
    )


def _set_random_state(text: str) -> None:
    state = json.loads(text)
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    torch.set_rng_state(_byte_tensor(state["torch"]))
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(_byte_tensor(state["cuda"]))


def _byte_tensor(text: str) -> torch.Tensor:
    return torch.tensor(list(bytes.fromhex(text)), dtype=torch.uint8)


def _say(sentence: str) -> None:
    print(f"checkpoint: {sentence}", file=sys.stderr, flush=True)


def _free(path: Path) -> str:
    """How much room there is: torch's writer hides "no space left" behind "unexpected pos"."""
    try:
        return f"{shutil.disk_usage(path).free // 2**20} MiB free there"
    except OSError as error:
        return f"free space unknown: {error.strerror}"


def _cause(error: BaseException) -> str:
    return str(error).strip().rpartition("\n")[2]
