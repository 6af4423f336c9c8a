"""The state of a small part of a run as one string, which torch.distributed.checkpoint saves and loads as it is.

As nested values it would be taken apart, and could be loaded only into a state with the same keys.
"""

import base64
import io
import pickle
from typing import Any

import torch

from nodewatch_train.manifest import CheckpointError

_MARK = "packed:"


def pack(state: Any) -> str:
    """Any state that torch.load reads with weights_only: numbers, strings, lists, dicts, tensors."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return _MARK + base64.b64encode(buffer.getvalue()).decode("ascii")


def unpack(text: str) -> Any:
    """The state that was packed. Raises CheckpointError for what torch refuses to load without running its code."""
    try:
        return torch.load(io.BytesIO(base64.b64decode(text.removeprefix(_MARK))), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError) as error:
        why = str(error).splitlines()[0]
        raise CheckpointError(
            f"a part of the run's state cannot be loaded ({why}): keep numbers, strings and tensors in it"
        ) from error
