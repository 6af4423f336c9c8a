"""Ask the controller on its socket."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nodewatch.errors import ChannelError

DEFAULT_SOCKET = Path("/run/nodewatch-controller/controller.sock")
_TIMEOUT_S = 10.0


def ask(path: Path, question: Mapping[str, Any]) -> dict[str, Any]:
    """The controller's answer. Raises ChannelError with one sentence when there is none, or when it is an error."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_TIMEOUT_S)
            connection.connect(str(path))
            connection.sendall(json.dumps(question).encode() + b"\n")
            with connection.makefile("rb") as stream:
                line = stream.readline()
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise ChannelError(
            f"no controller answers at {path}: run this on the head node, where nodewatch-controller.service runs"
        ) from error
    except OSError as error:
        raise ChannelError(f"the controller at {path} did not answer: {error}") from error
    try:
        answer = json.loads(line)
    except ValueError as error:
        raise ChannelError(f"the controller at {path} answered something that is no JSON") from error
    if not isinstance(answer, dict):
        raise ChannelError(f"the controller at {path} answered something that is no JSON object")
    if "error" in answer:
        raise ChannelError(str(answer["error"]))
    return answer
