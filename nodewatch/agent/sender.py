"""The thread that talks to the controller: events at least once, a heartbeat in between (docs/interfaces.md, section 4)."""

from __future__ import annotations

import http.client
import json
import logging
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from nodewatch.agent.spool import Spool
from nodewatch.errors import ChannelError

_LOG = logging.getLogger(__name__)
_TIMEOUT_S = 5.0
_BACKOFF_CAP_S = 15.0
_LEAST_PAUSE_S = 0.5
"""Between two tries while the controller is away, however many events come."""
_MAX_ANSWER = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the controller said: the ids it has now, and what it asks for."""

    accepted: tuple[str, ...]
    requests: tuple[Mapping[str, Any], ...] = ()


def parse_answer(body: bytes) -> Answer:
    """The controller's answer. Raises ChannelError for anything else."""
    try:
        data = json.loads(body)
        if data.get("v") != 1:
            raise ChannelError(f"the controller speaks version {data.get('v')!r}, this agent speaks 1: update one")
        accepted = tuple(str(item) for item in data["accepted"])
        requests = tuple(dict(item) for item in data.get("requests", ()))
        # What is told of the cluster comes with every answer, and is taken as one more request.
        if "cluster" in data:
            requests = (*requests, {**data["cluster"], "kind": "cluster"})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ChannelError(
            "the controller answered with something that is no answer: is it a nodewatch one?"
        ) from error
    return Answer(accepted=accepted, requests=requests)


def _line(error: Exception) -> str:
    # A peer that speaks another protocol gets into the message with its line ends.
    return " ".join(str(error).split())[:200] or type(error).__name__


class Link:
    """One HTTP connection to the controller, kept open between messages."""

    def __init__(self, url: str, *, seal: Callable[[bytes], str], timeout_s: float = _TIMEOUT_S) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._port = parts.port or 80
        self._path = parts.path.rstrip("/") + "/v1/events"
        self._url = url
        self._seal = seal
        self._timeout_s = timeout_s
        self._connection: http.client.HTTPConnection | None = None

    def post(self, message: Mapping[str, Any]) -> Answer:
        """Seal and send one message. Raises ChannelError when there is no answer, or none that can be used."""
        credential = self._seal(json.dumps(message, separators=(",", ":")).encode("utf-8"))
        kept = self._connection is not None
        try:
            status, body = self._exchange(credential)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            # A connection that was kept may have been closed by a controller that restarted: that is no failure yet.
            if not kept or isinstance(error, TimeoutError):
                raise ChannelError(f"the controller at {self._url} does not answer ({_line(error)})") from error
            # MUNGE refuses a credential that it has seen, so the second try needs a new one.
            credential = self._seal(json.dumps(message, separators=(",", ":")).encode("utf-8"))
            try:
                status, body = self._exchange(credential)
            except (OSError, http.client.HTTPException) as again:
                self.close()
                raise ChannelError(f"the controller at {self._url} does not answer ({_line(again)})") from again
        if status != 200:
            said = " ".join(body[:200].decode("utf-8", "replace").split())
            raise ChannelError(f"the controller at {self._url} refused the message with status {status}: {said}")
        return parse_answer(body)

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _exchange(self, credential: str) -> tuple[int, bytes]:
        if self._connection is None:
            self._connection = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s)
        self._connection.request(
            "POST", self._path, body=credential.encode("ascii"), headers={"Content-Type": "text/plain"}
        )
        response = self._connection.getresponse()
        body = response.read(_MAX_ANSWER + 1)
        if len(body) > _MAX_ANSWER:
            raise http.client.HTTPException("the answer is longer than 1 MiB")
        if response.will_close:
            self.close()
        return response.status, body


class Sender(threading.Thread):
    """Sends what waits in the spool, at once when woken, and a heartbeat every `heartbeat_s`."""

    def __init__(
        self,
        *,
        link: Link,
        spool: Spool,
        describe: Callable[[], Mapping[str, Any]],
        heartbeat_s: float,
        on_requests: Callable[[Sequence[Mapping[str, Any]]], None],
        on_sent: Callable[[Mapping[str, Any]], None] = lambda _message: None,
    ) -> None:
        """`describe` gives the message without its events, `on_sent` gets what the controller has taken of that; they and
        `on_requests` are called from this thread."""
        super().__init__(name="sender", daemon=True)
        self._link = link
        self._spool = spool
        self._describe = describe
        self._heartbeat_s = heartbeat_s
        self._on_requests = on_requests
        self._on_sent = on_sent
        self._wake = threading.Event()
        self._stopping = False
        self._random = random.Random()
        self.failures = 0
        """Tries in a row without an answer."""
        self.sent = 0
        self.last_contact = time.monotonic()
        """Monotonic seconds of the last answer; the start of the agent before the first."""
        self.error: str | None = None

    def wake(self) -> None:
        """Something new is in the spool, or the verdict changed: send now."""
        self._wake.set()

    def stop(self) -> None:
        """End after the message that is under way."""
        self._stopping = True
        self._wake.set()

    def run(self) -> None:
        """Send until stopped."""
        while not self._stopping:
            self._wake.clear()
            began = time.monotonic()
            try:
                more = self.send_once()
            except Exception:
                # A thread that ends in silence would make a healthy node look dead: say it, and go on.
                _LOG.exception("the message to the controller failed in an unforeseen way: report it")
                self._link.close()
                self.failures += 1
                more = False
            if more or self._stopping:
                continue
            if self.failures == 0:
                self._wake.wait(max(0.0, self._heartbeat_s - (time.monotonic() - began)))
                continue
            # Nodes that lost the same controller must not all come back in the same instant.
            pause = min(_BACKOFF_CAP_S, self._heartbeat_s * 2.0 ** min(self.failures - 1, 10))
            self._wake.wait(pause * self._random.uniform(0.5, 1.0))
            if not self._stopping:
                time.sleep(max(0.0, min(_LEAST_PAUSE_S, began + _LEAST_PAUSE_S - time.monotonic())))
        self._link.close()

    def send_once(self) -> bool:
        """One message with the oldest events. True when it was taken and more events wait."""
        events = self._spool.batch()
        message = self._describe()
        try:
            answer = self._link.post({**message, "events": events})
        except ChannelError as error:
            self.failures += 1
            if self.error is None:
                _LOG.warning("%s; events wait in the spool", error)
            self.error = str(error)
            return False
        if self.error is not None:
            _LOG.warning("the controller answers again")
        self.failures, self.error = 0, None
        self.sent += 1
        self.last_contact = time.monotonic()
        self._on_sent(message)
        self._spool.accept(answer.accepted)
        if answer.requests:
            self._on_requests(answer.requests)
        # Only what this message brought down counts: a controller that accepts nothing must not be asked in a circle.
        return bool(events) and self._spool.depth > 0 and any(event["id"] in answer.accepted for event in events)


class NoSender:
    """Stands in for the sender where no controller is configured: events stay in the spool."""

    def __init__(self) -> None:
        self.failures = 0
        self.sent = 0
        self.error: str | None = None
        self.last_contact = time.monotonic()

    def start(self) -> None:
        """Nothing to start."""

    def wake(self) -> None:
        """Nobody to wake."""

    def stop(self) -> None:
        """Nothing to stop."""
