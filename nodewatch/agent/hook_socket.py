"""The socket where hooks ask whether a job may start: it answers at once, from what is known.

The protocol is section 2 of docs/interfaces.md.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nodewatch.errors import ChannelError, ConfigError
from nodewatch.policy.verdicts import HookAnswer

_LOG = logging.getLogger(__name__)
_ASKS = ("prolog", "epilog", "healthcheck")
_MAX_REQUEST = 65536
_MAX_CLIENTS = 128
_CLIENT_DEADLINE_S = 2.0
"""A hook has 1 s for everything: one that has not said its line by then is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HookRequest:
    """What a hook asks. `job` is what Slurm's environment said, empty for a health check."""

    ask: str
    job: Mapping[str, str] = field(default_factory=dict)


def parse_request(line: bytes) -> HookRequest:
    """The request in one line. Raises ChannelError with one sentence for anything else."""
    try:
        data = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ChannelError("the request is not one line of JSON") from error
    if not isinstance(data, dict):
        raise ChannelError("the request is no JSON object")
    if data.get("v") != 1:
        raise ChannelError(f"the request has version {data.get('v')!r}, this agent speaks 1")
    ask = data.get("ask")
    if ask not in _ASKS:
        raise ChannelError(f"the request asks {str(ask)[:100]!r}: ask one of {', '.join(_ASKS)}")
    job = data.get("job") or {}
    if not isinstance(job, dict):
        raise ChannelError("the job in the request is no JSON object")
    return HookRequest(ask=ask, job={str(key): str(value)[:1000] for key, value in job.items()})


@dataclass(slots=True, kw_only=True)
class _Client:
    connection: socket.socket
    until: float
    data: bytearray = field(default_factory=bytearray)


class HookSocket:
    """Serves hooks from the main loop without blocking. Only root and the given users are answered."""

    def __init__(self, path: Path, *, uids: Iterable[int], owner: int) -> None:
        """`owner` gets the socket file (mode 0600, which root passes anyway); `uids` are answered beside root."""
        self._path = path
        self._uids = frozenset({0, *uids})
        self._owner = owner
        self._listener: socket.socket | None = None
        self._clients: dict[int, _Client] = {}
        self.refused = 0
        self.errors = 0

    def open(self) -> None:
        """Listen. Raises ConfigError when another agent listens there or the path cannot be used."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
            self._clear_stale()
            # Without the mask anybody could connect between bind and chmod.
            before = os.umask(0o177)
            try:
                listener.bind(str(self._path))
            finally:
                os.umask(before)
            if self._owner != os.geteuid():
                os.chown(self._path, self._owner, -1)
            listener.listen(_MAX_CLIENTS)
        except OSError as error:
            listener.close()
            raise ConfigError(
                f"the hooks' socket {self._path} cannot be made ({error}): run as root, or set socket in agent.toml"
            ) from error
        self._listener = listener

    def close(self) -> None:
        """Stop listening and remove the socket file."""
        for client in self._clients.values():
            client.connection.close()
        self._clients.clear()
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            with contextlib.suppress(OSError):
                self._path.unlink()

    def filenos(self) -> tuple[int, ...]:
        """The listener and the clients that have not asked yet."""
        return () if self._listener is None else (self._listener.fileno(), *self._clients)

    def due_at(self) -> float | None:
        """When the slowest client is given up."""
        return min((client.until for client in self._clients.values()), default=None)

    def serve(self, ready: set[int], now: float, decide: Callable[[HookRequest], HookAnswer]) -> None:
        """Accept, read and answer whatever can be without waiting. `decide` is called once for each good request."""
        if self._listener is not None and self._listener.fileno() in ready:
            self._accept(now)
            # A hook says its line right away: it is there now as a rule, and the answer leaves a wake-up earlier.
            ready = {*ready, *self._clients}
        for fd in [fd for fd in self._clients if fd in ready]:
            self._read(fd, decide)
        for fd, client in list(self._clients.items()):
            if now >= client.until:
                self._drop(fd)

    def _accept(self, now: float) -> None:
        assert self._listener is not None
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                # Nobody is left to accept, or the one who waited is gone.
                return
            connection.setblocking(False)
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            _, uid, _ = struct.unpack("3i", credentials)
            if uid not in self._uids or len(self._clients) >= _MAX_CLIENTS:
                self.refused += 1
                self._send(connection, {"v": 1, "error": "only root and SlurmUser may ask, a hundred at a time"})
                connection.close()
                continue
            self._clients[connection.fileno()] = _Client(connection=connection, until=now + _CLIENT_DEADLINE_S)

    def _read(self, fd: int, decide: Callable[[HookRequest], HookAnswer]) -> None:
        client = self._clients[fd]
        ended = False
        try:
            chunk = client.connection.recv(_MAX_REQUEST)
            client.data.extend(chunk)
            ended = not chunk
        except BlockingIOError:
            return
        except OSError:
            self._drop(fd)
            return
        line, newline, _ = bytes(client.data).partition(b"\n")
        if not newline and not ended and len(client.data) <= _MAX_REQUEST:
            return
        try:
            if len(line) > _MAX_REQUEST:
                raise ChannelError(f"the request is longer than {_MAX_REQUEST} bytes")
            request = parse_request(line)
        except ChannelError as error:
            self.errors += 1
            self._send(client.connection, {"v": 1, "error": str(error)})
        else:
            answer = decide(request)
            self._send(
                client.connection,
                {"v": 1, "allow": answer.allow, "reason": answer.reason, "counted": answer.counted},
            )
        self._drop(fd)

    @staticmethod
    def _send(connection: socket.socket, answer: Mapping[str, Any]) -> None:
        # The answer fits into an empty socket buffer: a peer that is gone or full has no use for it.
        with contextlib.suppress(OSError):
            connection.send(json.dumps(answer).encode("utf-8") + b"\n")

    def _drop(self, fd: int) -> None:
        self._clients.pop(fd).connection.close()

    def _clear_stale(self) -> None:
        if not self._path.is_socket():
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(1.0)
            try:
                probe.connect(str(self._path))
            except OSError:
                self._path.unlink(missing_ok=True)
                return
        raise ConfigError(f"another agent listens on {self._path}: stop it first (systemctl stop nodewatch-agent)")
