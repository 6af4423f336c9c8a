"""Saving and resuming a distributed run: torch.distributed.checkpoint for the tensors, `manifest` for the trust.

Every rank takes part: each writes its share, flushes and hashes it; rank 0 commits once all have. A checkpoint holds
the model, the optimiser, the step, the position in the data, and each rank's random state.
"""

import hashlib
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
import torch.distributed as dist

from nodewatch_train import manifest
from nodewatch_train.copies import Copy, newest_copy
from nodewatch_train.lock import DirectoryLock, Owner
from nodewatch_train.manifest import CheckpointError, FileEntry, Manifest, RefusedError
from nodewatch_train.packing import pack, unpack
from nodewatch_train.randomness import random_state, set_random_state

RESUME_FROM = "NODEWATCH_RESUME_FROM"
"""Environment variable: the checkpoint that the controller verified for this start."""

_T = TypeVar("_T")


class DataPosition(Protocol):
    """Where the run stands in its data: the same on every rank. The state must be JSON values."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Stateful(Protocol):
    """A part of the run that is the same on every rank, such as a learning-rate schedule. The state may hold tensors."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> Any: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """A committed checkpoint of `step`: its directory's name, how long the save took, and how long training stood still."""

    name: str
    step: int
    seconds: float
    held_seconds: float


class Checkpointer:
    """Saves a run into one directory, and resumes it from the newest checkpoint there that verifies.

    Made on every rank, after init_process_group (or without any, for a single process). One job at a time may write into
    the directory. Every method is called by all ranks at the same step.

    also: parts whose state goes along, by name. rank_state: parts whose state differs from rank to rank, such as a
    dataloader with workers; it is restored only at the same number of ranks. keep: how many verified checkpoints stay.
    copies: where committed checkpoints are copied to as well, and fetched from when none here verifies.
    overlap: copy parameters and optimiser state while the next step's forward and backward pass run (`staging`).
    threads: files that a rank writes at a time. io_timeout bounds a save or a verification, which on a large model
    takes far longer than a step's collectives may.
    """

    def __init__(
        self,
        root: Path,
        *,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        data: DataPosition,
        also: Mapping[str, Stateful] | None = None,
        rank_state: Mapping[str, Stateful] | None = None,
        keep: int = 3,
        copies: Sequence[Copy] = (),
        overlap: bool = True,
        threads: int = 2,
        io_timeout: timedelta = timedelta(minutes=30),
    ) -> None:
        self.resumed_from: str | None = None
        """The name of the checkpoint that `resume` loaded; None when it started from scratch."""
        self._root = root
        self._model = model
        self._optimizer = optimizer
        self._data = data
        self._also = dict(also or {})
        self._rank_state = dict(rank_state or {})
        self._keep = keep
        self._copies = copies
        self._later = frozenset(_overlapping(model)) if overlap else frozenset[str]()
        self._threads = threads
        self._trusted: set[str] = set()
        self._fingerprint = fingerprint(model)
        self._rank = dist.get_rank() if dist.is_initialized() else 0
        self._world_size = dist.get_world_size() if dist.is_initialized() else 1
        # A group of its own: on the default one a long verification on rank 0 would time the waiting ranks out, NCCL
        # carries no Python objects, and a save in the background must not mix with the training's collectives.
        self._group = dist.new_group(backend="gloo", timeout=io_timeout) if dist.is_initialized() else None
        self._lock: DirectoryLock | None = None
        self._background = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._running: Future[Saved] | None = None
        self._staging: Any = None
        self._unstaged = threading.Event()
        self._unstaged.set()
        self._held = 0.0
        optimizer.register_step_pre_hook(lambda *_: self._await_copy())

    def resume(self) -> int:
        """Load the newest verified checkpoint, on every rank, and return the number of steps completed (0: none).

        NODEWATCH_RESUME_FROM is preferred when it verifies. What was skipped is said on standard error, a sentence
        each. Raises CheckpointError when the directory cannot be used, RefusedError when it belongs to another model
        or is being written by another job.
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
        self._start(step, in_place=True)
        saved = self.wait()
        assert saved is not None
        return saved

    def begin_save(self, step: int) -> None:
        """As `save`, in the background: returns once the run may go on. `finished` tells when it is committed.

        A save that still runs is waited for first, and its error raised.
        """
        self._start(step, in_place=False)

    def _start(self, step: int, *, in_place: bool) -> None:
        self.wait()
        began = time.monotonic()
        if self._staging is None:
            from nodewatch_train.staging import Staging

            self._staging = Staging()
        state = self._state()
        extra = {"model": self._fingerprint, "data": self._data.state_dict(), "also": sorted(self._also)}
        staged: Any = None
        failed: CheckpointError | None = None
        try:
            staged = self._staging.begin(state, later=self._later, in_place=in_place)
        except CheckpointError as error:
            failed = error  # said to the others in the background, who would wait for us there otherwise
        else:
            self._unstaged = staged.ready
        self._held = time.monotonic() - began
        self._running = self._background.submit(self._save, step, state, staged, failed, extra, began)

    def finished(self) -> Saved | None:
        """The save that was begun, once, after it is committed; None while it runs. Raises what it failed with."""
        if self._running is None or not self._running.done():
            return None
        return self.wait()

    def wait(self) -> Saved | None:
        """Wait for the save that was begun, and return it; None when there is none that was not told yet."""
        running, self._running = self._running, None
        return None if running is None else running.result()

    def close(self) -> None:
        """Wait for the last save, and let the next job have the directory."""
        try:
            self.wait()
        finally:
            self._background.shutdown()
            if self._lock is not None:
                self._lock.release()

    def _await_copy(self) -> None:
        """Before the optimiser changes anything: let the copy of what it changes end."""
        if not self._unstaged.is_set():
            began = time.monotonic()
            self._unstaged.wait()
            self._held += time.monotonic() - began

    def _save(
        self, step: int, state: Any, staged: Any, failed: CheckpointError | None, extra: dict[str, Any], began: float
    ) -> Saved:
        """In the background, on every rank."""
        if staged is not None:
            try:
                staged.finish()
            except CheckpointError as error:
                failed = error
        self._agree(failed)
        tmp = self._on_rank_0(lambda: self._begin(step))
        described = self._write(tmp, state, staged)

        def commit() -> str:
            self._locked().check()
            done = manifest.commit(tmp, step, world_size=self._world_size, extra=extra, described=described)
            self._trusted.add(done.name)
            for copy in self._copies:
                copy.put(done)
            manifest.prune(self._root, self._keep, trusted=self._trusted, up_to=step)
            return done.name

        name = self._on_rank_0(commit)
        return Saved(name=name, step=step, seconds=time.monotonic() - began, held_seconds=self._held)

    def _begin(self, step: int) -> Path:
        self._locked()
        return manifest.begin(self._root, step)

    def _locked(self) -> DirectoryLock:
        """On rank 0: the lock, taken at the first need of it."""
        if self._lock is None:
            lock = DirectoryLock(self._root, owner=Owner.from_environment(os.environ))
            lock.acquire()
            self._lock = lock
        return self._lock

    def _choose(self) -> tuple[Path, Manifest] | None:
        """On rank 0: the checkpoint to load, and what it holds."""
        manifest.check_directory(self._root)
        self._locked()
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
        newest = newest_copy(self._root, newest, self._copies, say=_say)
        if newest is None:
            if newer := [path.name for path in manifest.checkpoints(self._root) if manifest.is_newer(path)]:
                raise RefusedError(
                    f"{self._root} holds {newer[0]} of a newer nodewatch and nothing else that verifies: update "
                    "nodewatch_train here, or use another checkpoint directory"
                )
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

    def _write(self, tmp: Path, state: Any, staged: Any) -> dict[str, FileEntry]:
        """Write, flush and hash this rank's share; on rank 0, what all ranks wrote. Returns after all have."""
        from torch.distributed.checkpoint.api import CheckpointException
        from torch.distributed.checkpoint.state_dict_saver import save

        from nodewatch_train.storage import HashingWriter, StagedPlanner

        writer = HashingWriter(tmp, threads=self._threads)
        planner = StagedPlanner(staged)
        try:
            save(state, storage_writer=writer, planner=planner, process_group=self._group, no_dist=self._group is None)
        except (CheckpointException, OSError) as error:
            raise CheckpointError(f"cannot write checkpoint {tmp} ({_free(tmp)}): {_cause(error)}") from error
        return {name: entry for share in self._gather(writer.entries) for name, entry in share.items()}

    def _load(self, path: Path, found: Manifest) -> None:
        from torch.distributed.checkpoint.api import CheckpointException
        from torch.distributed.checkpoint.state_dict import set_state_dict
        from torch.distributed.checkpoint.state_dict_loader import load

        state = self._state()
        mine = _rank_key(self._rank)
        if self._rank >= found.world_size:
            del state[mine]  # a rank that did not exist then keeps the seed it was started with
        kept = found.extra.get("also", [])
        for name in self._also:
            if name not in kept:
                _say(f"{path.name} holds no {name!r}, which this run saves: it starts anew")
                del state[_also_key(name)]
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
        for name, part in self._also.items():
            if _also_key(name) in state:
                part.load_state_dict(unpack(state[_also_key(name)]))
        if mine in state:
            random, parts = unpack(state[mine]) if state[mine].startswith("packed:") else (state[mine], {})
            set_random_state(random)
            for name, part in self._rank_state.items():
                if name in parts and self._world_size == found.world_size:
                    part.load_state_dict(parts[name])

    def _state(self) -> dict[str, Any]:
        # Imported late: it costs start-up time, and a run must reach its first step before its first save.
        from torch.distributed.checkpoint.state_dict import get_state_dict

        model, optimizer = get_state_dict(self._model, self._optimizer)
        parts = {name: part.state_dict() for name, part in self._rank_state.items()}
        return {
            "model": model,
            "optimizer": optimizer,
            _rank_key(self._rank): pack([random_state(), parts]) if parts else random_state(),
            **{_also_key(name): pack(part.state_dict()) for name, part in self._also.items()},
        }

    def _agree(self, failed: CheckpointError | None) -> None:
        """Raise on every rank what any of them failed with."""
        for error in self._gather(failed):
            if error is not None:
                raise error

    def _gather(self, mine: Any) -> list[Any]:
        if self._group is None:
            return [mine]
        shares: list[Any] = [None] * self._world_size
        dist.all_gather_object(shares, mine, group=self._group)
        return shares

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


def _overlapping(model: torch.nn.Module) -> list[str]:
    """The paths of what only the optimiser's step changes. Not the buffers: a forward pass may change those."""
    # DDP's own prefix is not part of the names in a state dict.
    names = [name.removeprefix("module.") for name, _ in model.named_parameters()]
    return ["optimizer/state", *(f"model/{name}" for name in names)]


def _rank_key(rank: int) -> str:
    return f"random-{rank}"


def _also_key(name: str) -> str:
    return f"also-{name}"


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
