"""Host copies of a run's tensors, so that training goes on while they are written.

The copies go into memory that is allocated once and kept (pinned where there is a GPU). Parameters and the optimiser's
state change nowhere but in the optimiser's step: they are copied while the next forward and backward pass already run, and
only the optimiser's step waits for the copy. Everything else is copied before `begin` returns.
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from nodewatch_train.manifest import CheckpointError


class Staged:
    """One state that is being copied. `ready` is set once the originals may change again."""

    def __init__(self, pairs: list[tuple[str, torch.Tensor, torch.Tensor]], copies: dict[int, torch.Tensor]) -> None:
        self.ready = threading.Event()
        self._later = pairs
        self._versions = [source._version for _, source, _ in pairs]  # noqa: SLF001 (torch has no other way to ask)
        self._copies = copies
        cuda = next((source.device for _, source, _ in pairs if source.is_cuda), None)
        self._cuda = cuda
        self._reached = torch.cuda.current_stream(cuda).record_event() if cuda is not None else None

    def finish(self) -> None:
        """Copy what was left for later; in the background. Raises CheckpointError when something changed it meanwhile."""
        try:
            with self._stream() as stream:
                for _, source, copy in self._later:
                    copy.copy_(source, non_blocking=True)
                if stream is not None:
                    stream.synchronize()
            for (name, source, _), version in zip(self._later, self._versions, strict=True):
                if source._version != version:  # noqa: SLF001
                    raise CheckpointError(
                        f"{name} was changed outside of the optimiser's step while its checkpoint was copied: "
                        "give the Checkpointer overlap=False"
                    )
        finally:
            self.ready.set()

    def of(self, tensor: torch.Tensor) -> torch.Tensor:
        """The host copy of this tensor, or of this rank's part of it."""
        return self._copies[id(tensor)]

    @contextmanager
    def _stream(self) -> Iterator[Any]:
        """Beside the training's own stream, from where that stood when the save was asked for; None on the host."""
        if self._reached is None:
            yield None
            return
        stream: Any = torch.cuda.Stream(self._cuda)  # type: ignore[no-untyped-call]
        stream.wait_event(self._reached)
        with torch.cuda.stream(stream):
            yield stream


class Staging:
    """Keeps the host memory from one save to the next; one save at a time."""

    def __init__(self) -> None:
        self._buffers: dict[str, torch.Tensor] = {}

    def begin(self, state: Mapping[str, Any], *, later: frozenset[str], in_place: bool = False) -> Staged:
        """Copy the tensors of a nested state. Those under a path that begins with a name in `later` are left to `finish`.

        in_place: nothing will change before all is written, and so what lies in the host's memory is not copied.
        Raises CheckpointError for a kind of tensor that is not known.
        """
        pairs: list[tuple[str, torch.Tensor, torch.Tensor]] = []
        copies: dict[int, torch.Tensor] = {}
        with torch.no_grad():
            for path, tensor in tensors(state):
                local = local_part(path, tensor)
                if in_place and local.device.type == "cpu":
                    copies[id(tensor)] = local
                    continue
                copy = copies[id(tensor)] = self._buffer(path, local)
                if any(path == name or path.startswith(f"{name}/") for name in later):
                    pairs.append((path, local, copy))
                else:
                    copy.copy_(local)
        return Staged(pairs, copies)

    def _buffer(self, path: str, like: torch.Tensor) -> torch.Tensor:
        buffer = self._buffers.get(path)
        if buffer is None or buffer.shape != like.shape or buffer.dtype != like.dtype:
            try:
                buffer = torch.empty(like.shape, dtype=like.dtype, pin_memory=like.is_cuda)
            except RuntimeError as error:
                raise CheckpointError(
                    f"no host memory for the copy of {path} ({like.nbytes >> 20} MiB): {error}"
                ) from error
            self._buffers[path] = buffer
        return buffer


def tensors(state: Any, path: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor in nested dicts and lists, with the names that lead to it, joined by a slash."""
    if isinstance(state, torch.Tensor):
        yield path, state
    elif isinstance(state, Mapping):
        for name, value in state.items():
            yield from tensors(value, f"{path}/{name}" if path else str(name))
    elif isinstance(state, list | tuple):
        for index, value in enumerate(state):
            yield from tensors(value, f"{path}/{index}")


def local_part(path: str, tensor: torch.Tensor) -> torch.Tensor:
    """What this rank holds of a tensor, detached."""
    if isinstance(tensor, DTensor):
        return tensor.to_local().detach()
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter):
        raise CheckpointError(
            f"{path} is a {type(tensor).__name__}, which cannot be saved: shard with FSDP2 (fully_shard), whose tensors are "
            "DTensors"
        )
    return tensor.detach()
