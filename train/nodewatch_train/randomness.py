"""A rank's random state as one string: Python's, numpy's where it is loaded, torch's on the host and on the GPU.

As a string, because torch.distributed.checkpoint takes a dict apart and demands the same keys when it is loaded.
"""

import json
import random
import sys

import torch


def random_state() -> str:
    """The state of every generator of this process."""
    numpy = sys.modules.get("numpy")
    legacy = None
    if numpy is not None:
        name, keys, position, has_gauss, gauss = numpy.random.get_state()
        legacy = [name, keys.tolist(), int(position), int(has_gauss), float(gauss)]
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    return json.dumps(
        {
            "python": random.getstate(),
            "numpy": legacy,
            "torch": _hex(torch.get_rng_state()),
            "cuda": None if cuda is None else _hex(cuda),
        }
    )


def set_random_state(text: str) -> None:
    """Put the generators where they were. What the text does not hold, or this process has not, keeps its own state."""
    state = json.loads(text)
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    numpy = sys.modules.get("numpy")
    if state.get("numpy") is not None and numpy is not None:
        name, keys, position, has_gauss, cached = state["numpy"]
        numpy.random.set_state((name, numpy.array(keys, dtype=numpy.uint32), position, has_gauss, cached))
    torch.set_rng_state(_tensor(state["torch"]))
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(_tensor(state["cuda"]))


def _hex(state: torch.Tensor) -> str:
    return bytes(state.tolist()).hex()


def _tensor(text: str) -> torch.Tensor:
    return torch.tensor(list(bytes.fromhex(text)), dtype=torch.uint8)
