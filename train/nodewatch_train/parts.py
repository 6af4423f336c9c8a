"""What a run is made of, as its checkpoints see it."""

import hashlib
from dataclasses import dataclass
from typing import Any, Protocol

import torch


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
    """A committed checkpoint of `step`: its directory's name, how long the save took, and how long training stood still.

    is_local: it stands in the nodes' own storage, and is not, or not yet, in the checkpoint directory.
    """

    name: str
    step: int
    seconds: float
    held_seconds: float
    is_local: bool = False


def fingerprint(model: torch.nn.Module) -> str:
    """The same string for models whose parameters and buffers agree in name, global shape and type, wrapped or not."""
    lines = [
        f"{name.removeprefix('module.')} {tuple(tensor.shape)} {tensor.dtype}"
        for name, tensor in sorted([*model.named_parameters(), *model.named_buffers()], key=lambda pair: pair[0])
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def overlapping(model: torch.nn.Module) -> list[str]:
    """The paths of what only the optimiser's step changes. Not the buffers: a forward pass may change those."""
    # DDP's own prefix is not part of the names in a state dict.
    names = [name.removeprefix("module.") for name, _ in model.named_parameters()]
    return ["optimizer/state", *(f"model/{name}" for name in names)]
