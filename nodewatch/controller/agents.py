"""Where agents report and Prometheus asks: POST /v1/events and GET /metrics."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Callable, Collection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from nodewatch.errors import ChannelError, JournalError

_log = logging.getLogger(__name__)
_MOST_BYTES = 4 << 20
_READ_TIMEOUT_S = 10.0

Decode = Callable[[str], tuple[bytes, int, int]]
Receive = Callable[[dict[str, Any]], dict[str, Any]]


class AgentServer(ThreadingHTTPServer):
    """Believes what is sealed by one of `uids`; hands it to `receive` and sends back its answer."""

    daemon_threads = True
    request_queue_size = 512
    """At 2,000 agents a burst of heartbeats must not be refused by the kernel's queue."""

    def __init__(
        self,
        address: tuple[str, int],
        *,
        decode: Decode,
        uids: Collection[int],
        receive: Receive,
        metrics: Callable[[], bytes],
    ) -> None:
        """Listen on `address`. Raises OSError when it is taken."""
        self.decode = decode
        self.uids = frozenset(uids)
        self.receive = receive
        self.metrics = metrics
        super().__init__(address, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """One line for an agent that went away before its answer; a stack for what is a bug of ours."""
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            _log.info("the connection from %s ended early: %s", client_address[0], error)
        else:
            _log.exception("a message from %s could not be handled; this is a bug, please report it", client_address[0])


class _Handler(BaseHTTPRequestHandler):
    server: AgentServer
    protocol_version = "HTTP/1.1"
    # A client that connects and says nothing must not keep a thread for ever.
    timeout = _READ_TIMEOUT_S

    def do_POST(self) -> None:
        """An agent's message."""
        if self.path != "/v1/events":
            # Its body was not read and would be taken for the next request.
            self.close_connection = True
            self._answer(404, b"no such page: agents post to /v1/events\n")
            return
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch(r"[0-9]{1,9}", length) or int(length) > _MOST_BYTES:
            self.close_connection = True
            self._answer(413, b"the message needs a Content-Length of at most 4 MiB\n")
            return
        body = self.rfile.read(int(length))
        try:
            payload, uid, _ = self.server.decode(body.decode("ascii", "replace").strip())
        except ChannelError as error:
            _log.warning("a message from %s was refused: %s", self.client_address[0], error)
            self._answer(401, f"{error}\n".encode())
            return
        if uid not in self.server.uids:
            _log.warning("a message from uid %d on %s was refused", uid, self.client_address[0])
            self._answer(403, f"uid {uid} may not report: only root and SlurmUser\n".encode())
            return
        try:
            message = json.loads(payload)
            answer = self.server.receive(message)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            _log.warning("a message from %s was not understood: %r", self.client_address[0], error)
            self._answer(400, f"not a message of version 1: {error!r}\n".encode())
            return
        except JournalError as error:
            # Not accepted: the agent keeps its events and comes again.
            self._answer(503, f"{error}\n".encode())
            return
        self._answer(200, json.dumps(answer).encode(), "application/json")

    def do_GET(self) -> None:
        """Metrics."""
        if self.path != "/metrics":
            self._answer(404, b"no such page: metrics are at /metrics\n")
            return
        self._answer(200, self.server.metrics(), "text/plain; version=0.0.4; charset=utf-8")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Each request is no news."""

    def _answer(self, status: int, body: bytes, kind: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
