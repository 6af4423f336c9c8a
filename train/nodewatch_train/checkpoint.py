"""Saving and resuming a distributed run: torch.distributed.checkpoint for the tensors, `manifest` for the trust.

Every rank takes part: each writes its share, flushes and hashes it; rank 0 commits once all have. A checkpoint holds
the model, the optimiser, the step, the position in the data, and each rank's random state.
"""

import os
import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from nodewatch_train import manifest
from nodewatch_train.choice import RESUME_FROM, Choice, choose, say
from nodewatch_train.copies import Copy
from nodewatch_train.lock import DirectoryLock, Owner
from nodewatch_train.manifest import CheckpointError, FileEntry, Manifest
from nodewatch_train.packing import pack, unpack
from nodewatch_train.parts import DataPosition, Saved, Stateful, fingerprint, overlapping
from nodewatch_train.randomness import random_state, set_random_state
from nodewatch_train.together import Together

__all__ = ["RESUME_FROM", "Checkpointer", "DataPosition", "Saved", "Stateful", "fingerprint"]


class Checkpointer:
    """Saves a run into one directory, and resumes it from the newest checkpoint there that verifies.

    Made on every rank, after init_process_group (or without any, for a single process). One job at a time may write into
    the directory. Every method is called by all ranks at the same step.

    also: parts whose state goes along, by name. rank_state: parts whose state differs from rank to rank, such as a
    dataloader with workers; it is restored only at the same number of ranks. keep: how many verified checkpoints stay.
    copies: where committed checkpoints are copied to as well, and fetched from when none here verifies.
    overlap: copy parameters and optimiser state while the next step's forward and backward pass run (`staging`).
    local: where each background save goes first, on the nodes themselves (`tiers`); from there it goes on to the directory.
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
        local: Any = None,
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
        self._later = frozenset(overlapping(model)) if overlap else frozenset[str]()
        self._threads = threads
        self._trusted: set[str] = set()
        self._fingerprint = fingerprint(model)
        self._all = Together.made(io_timeout)
        self._shares: Any = None
        if local is not None:
            from nodewatch_train.tiers import Shares

            self._shares = Shares(local, root=root, together=self._all)
            self._flush_s = float(local.flush_s)
            self._all_flushing = Together.made(io_timeout)
            self._flusher = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint-flush")
        self._flush: Future[Saved] | None = None
        self._flush_began = float("-inf")
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
        chosen = self._all.on_rank_0(self._choose)
        if self._shares is not None and (chosen is None or not chosen.is_sent_back):
            above = -1 if chosen is None else chosen.manifest.step
            found = self._shares.newest(above=above, model=self._fingerprint)
            if found is not None:
                name = f"step-{found.manifest.step:08d}"
                if self._all.rank == 0:
                    say(f"{name} is read from the nodes' own storage")
                reader = self._shares.reader(found)
                self._load(Path(name), found.manifest, reader)
                reader.close()
                self.resumed_from = name
                return int(found.manifest.step)
        if chosen is None:
            return 0
        self._load(chosen.path, chosen.manifest)
        self.resumed_from = chosen.path.name
        self._trusted.add(chosen.path.name)
        return chosen.manifest.step

    def save(self, step: int) -> Saved:
        """Save the run after `step` completed steps into the directory, on every rank, and prune the old checkpoints.

        Raises CheckpointError on every rank when any of them could not write.
        """
        self._await_flush()
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
        self._running = self._background.submit(self._save, step, state, staged, failed, extra, began, in_place)

    def finished(self) -> Saved | None:
        """The save that was begun, once, after it is committed; None while it runs. Raises what it failed with.

        With `local`, twice: once it stands on the nodes, and, of those that go on, once it stands in the directory.
        """
        if self._running is not None and self._running.done():
            return self.wait()
        if self._flush is not None and self._flush.done():
            return self._await_flush()
        return None

    def wait(self) -> Saved | None:
        """Wait for the save that was begun, and return it; None when there is none that was not told yet."""
        running, self._running = self._running, None
        return None if running is None else running.result()

    def close(self) -> None:
        """Wait for the last save, and let the next job have the directory."""
        try:
            self.wait()
            self._await_flush()
        finally:
            self._background.shutdown()
            if self._shares is not None:
                self._flusher.shutdown()
            if self._lock is not None:
                self._lock.release()

    def _await_flush(self) -> Saved | None:
        flush, self._flush = self._flush, None
        return None if flush is None else flush.result()

    def _await_copy(self) -> None:
        """Before the optimiser changes anything: let the copy of what it changes end."""
        if not self._unstaged.is_set():
            began = time.monotonic()
            self._unstaged.wait()
            self._held += time.monotonic() - began

    def _save(
        self,
        step: int,
        state: Any,
        staged: Any,
        failed: CheckpointError | None,
        extra: dict[str, Any],
        began: float,
        in_place: bool,
    ) -> Saved:
        """In the background, on every rank."""
        if staged is not None:
            try:
                staged.finish()
            except CheckpointError as error:
                failed = error
        self._all.agree(failed)
        if self._shares is not None and not in_place:
            saved = self._save_shares(step, state, staged, extra, began)
            if saved is not None:
                return saved
        tmp = self._all.on_rank_0(lambda: self._begin(step))
        described = self._write(tmp, state, staged)
        together = {name: entry for share in self._all.gather(described) for name, entry in share.items()}
        name = self._all.on_rank_0(lambda: self._commit(tmp, step, extra, together))
        return Saved(name=name, step=step, seconds=time.monotonic() - began, held_seconds=self._held)

    def _commit(self, tmp: Path, step: int, extra: dict[str, Any], described: Mapping[str, FileEntry]) -> str:
        """On rank 0, once all ranks have written."""
        self._locked().check()
        done = manifest.commit(tmp, step, world_size=self._all.world_size, extra=extra, described=described)
        self._trusted.add(done.name)
        for copy in self._copies:
            copy.put(done)
        manifest.prune(self._root, self._keep, trusted=self._trusted, up_to=step)
        return done.name

    def _save_shares(self, step: int, state: Any, staged: Any, extra: dict[str, Any], began: float) -> Saved | None:
        """Into the nodes' own storage, and on from there; None where that takes no more, and the directory has to."""
        self._all.on_rank_0(lambda: self._locked().check())
        try:
            tmp = self._all.each(lambda: self._shares.begin(step))[self._all.rank]
            described = self._write(tmp, state, staged)
            path = self._shares.commit(tmp, step, extra, described)
        except CheckpointError as error:
            if self._all.rank == 0:
                say(f"step {step} goes to {self._root} at once: {error}")
            return None
        saved = Saved(
            name=path.name, step=step, seconds=time.monotonic() - began, held_seconds=self._held, is_local=True
        )
        if self._all.on_rank_0(self._is_flush_due):
            self._shares.pin(step)
            self._flush = self._flusher.submit(self._flush_shares, step, path, extra, saved, began)
        return saved

    def _is_flush_due(self) -> bool:
        """On rank 0."""
        now = time.monotonic()
        if self._flush is not None or now - self._flush_began < self._flush_s:
            return False
        self._flush_began = now
        return True

    def _flush_shares(self, step: int, path: Path, extra: dict[str, Any], saved: Saved, began: float) -> Saved:
        """A save from the nodes' own storage into the directory; in the background, beside the next saves."""
        every = self._all_flushing
        try:
            tmp = every.on_rank_0(lambda: self._begin(step))
            described = self._shares.copy_to(path, tmp, together=every)
            name = every.on_rank_0(lambda: self._commit(tmp, step, extra, described))
        finally:
            self._shares.unpin(step)
        return Saved(name=name, step=step, seconds=time.monotonic() - began, held_seconds=saved.held_seconds)

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

    def _choose(self) -> Choice | None:
        """On rank 0."""
        manifest.check_directory(self._root)
        self._locked()
        manifest.sweep(self._root)
        return choose(self._root, self._fingerprint, self._copies)

    def _write(self, tmp: Path, state: Any, staged: Any) -> dict[str, FileEntry]:
        """Write, flush and hash this rank's share, and say what it wrote. Returns after all have."""
        from torch.distributed.checkpoint.api import CheckpointException
        from torch.distributed.checkpoint.state_dict_saver import save

        from nodewatch_train.storage import HashingWriter, StagedPlanner

        writer = HashingWriter(tmp, threads=self._threads)
        planner = StagedPlanner(staged)
        try:
            save(
                state,
                storage_writer=writer,
                planner=planner,
                process_group=self._all.group,
                no_dist=self._all.group is None,
            )
        except (CheckpointException, OSError) as error:
            raise CheckpointError(f"cannot write checkpoint {tmp} ({_free(tmp)}): {_cause(error)}") from error
        return writer.entries

    def _load(self, path: Path, found: Manifest, reader: Any = None) -> None:
        from torch.distributed.checkpoint.api import CheckpointException
        from torch.distributed.checkpoint.state_dict import set_state_dict
        from torch.distributed.checkpoint.state_dict_loader import load

        state = self._state()
        mine = _rank_key(self._all.rank)
        if self._all.rank >= found.world_size:
            del state[mine]  # a rank that did not exist then keeps the seed it was started with
        kept = found.extra.get("also", [])
        for name in self._also:
            if name not in kept:
                say(f"{path.name} holds no {name!r}, which this run saves: it starts anew")
                del state[_also_key(name)]
        try:
            whence = {"checkpoint_id": path} if reader is None else {"storage_reader": reader}
            load(state, process_group=self._all.group, no_dist=self._all.group is None, **whence)
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
                if name in parts and self._all.world_size == found.world_size:
                    part.load_state_dict(parts[name])

    def _state(self) -> dict[str, Any]:
        # Imported late: it costs start-up time, and a run must reach its first step before its first save.
        from torch.distributed.checkpoint.state_dict import get_state_dict

        model, optimizer = get_state_dict(self._model, self._optimizer)
        parts = {name: part.state_dict() for name, part in self._rank_state.items()}
        return {
            "model": model,
            "optimizer": optimizer,
            _rank_key(self._all.rank): pack([random_state(), parts]) if parts else random_state(),
            **{_also_key(name): pack(part.state_dict()) for name, part in self._also.items()},
        }


def _rank_key(rank: int) -> str:
    return f"random-{rank}"


def _also_key(name: str) -> str:
    return f"also-{name}"


def _free(path: Path) -> str:
    """How much room there is: torch's writer hides "no space left" behind "unexpected pos"."""
    try:
        return f"{shutil.disk_usage(path).free // 2**20} MiB free there"
    except OSError as error:
        return f"free space unknown: {error.strerror}"


def _cause(error: BaseException) -> str:
    return str(error).strip().rpartition("\n")[2]
