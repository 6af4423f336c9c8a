"""The socket where the operator's commands ask: one JSON line in, one out."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import socketserver
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

_log = logging.getLogger(__name__)
_MOST_BYTES = 65536

Answer = Callable[[Mapping[str, Any], int], Mapping[str, Any]]
"""(question, uid of who asks) -> answer."""


class OperatorServer(socketserver.ThreadingUnixStreamServer):
    """Answers anyone on the machine; what may be asked for by whom is the answer's business, which is told who asks."""

    daemon_threads = True
    request_queue_size = 128
    """A Unix socket whose queue is full refuses a client at once: five, the default, are fewer than a shift of operators."""

    def __init__(self, path: Path, answer: Answer) -> None:
        """Listen at `path`, in the place of a socket that a dead controller left."""
        self.answer = answer
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        super().__init__(str(path), _Handler)
        path.chmod(0o666)
        os.set_inheritable(self.fileno(), False)


class _Handler(socketserver.StreamRequestHandler):
    server: OperatorServer
    timeout = 5.0

    def handle(self) -> None:
        """One question."""
        with contextlib.suppress(OSError):
            line = self.rfile.readline(_MOST_BYTES)
            try:
                question = json.loads(line)
                answer = self.server.answer(question, self._uid())
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                answer = {"error": f"not a question that this release knows: {error}"}
            self.wfile.write(json.dumps(answer, default=str).encode() + b"\n")

    def _uid(self) -> int:
        # The kernel says who is at the other end: nothing that a client writes can change it.
        credentials = self.connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return int(struct.unpack("3i", credentials)[1])
