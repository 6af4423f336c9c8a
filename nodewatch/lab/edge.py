"""EC2's outermost edge, in front of moto in the same process: what EC2 promises its callers and moto does not keep.

- a ClientToken seen before gets the answer it got before, so that a retried launch makes no second instance;
- a launch by template lands in the lab's subnet when the request names none, as the template says;
- capacity can be refused on demand;
- whoever watches the instances is told at once that they changed.
"""

import hashlib
import json
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode
from xml.sax.saxutils import escape

from nodewatch.lab.layout import CLOUD_ADDRESS, CLOUD_PORT, Layout

LAUNCHES = frozenset({"RunInstances", "CreateFleet", "StartInstances"})
LONGEST_THOUGHT_S = 60.0
Environ = dict[str, Any]
App = Callable[[Environ, Any], Iterable[bytes]]
Answer = tuple[str, list[tuple[str, str]], bytes]


class Edge:
    """A WSGI application around moto's."""

    def __init__(
        self, inner: App, *, no_capacity: Path, subnet: Path, events: Path, launches_held: Path | None = None
    ) -> None:
        """While `launches_held` exists, a launch that was asked for is not answered: an EC2 that thinks about it."""
        self._inner = inner
        self._launches_held = launches_held
        self._no_capacity = no_capacity
        self._subnet = subnet
        self._events = events
        self._answers: dict[tuple[str, str], tuple[str, Answer]] = {}
        # One launch at a time: two at once with the same token must not both find it unseen.
        self._launching = threading.Lock()
        self._teller = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._teller.setblocking(False)

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        request = dict(parse_qsl(body.decode(errors="replace"), keep_blank_values=True))
        action = request.get("Action", "")
        if action in LAUNCHES:
            with self._launching:
                answer = self._launch(action, request, environ)
        else:
            answer = self._ask(environ, body)
        if not action.startswith(("Describe", "Get")):
            self._tell(action, request)
        status, headers, payload = answer
        start_response(status, headers)
        return [payload]

    def _launch(self, action: str, request: dict[str, str], environ: Environ) -> Answer:
        token = request.get("ClientToken", "")
        meaning = hashlib.sha256(json.dumps(sorted(request.items())).encode()).hexdigest()
        if token and (seen := self._answers.get((action, token))):
            if seen[0] != meaning:
                return refusal(
                    400,
                    "IdempotentParameterMismatch",
                    "The client token that you specified was used before with other parameters.",
                )
            return seen[1]
        if self._no_capacity.exists():
            if action == "CreateFleet":
                return fleet_without_capacity()
            return refusal(
                500,
                "InsufficientInstanceCapacity",
                "We currently do not have sufficient capacity in the Availability Zone you requested.",
            )
        end = time.monotonic() + LONGEST_THOUGHT_S
        while self._launches_held is not None and self._launches_held.exists() and time.monotonic() < end:
            time.sleep(0.05)
        if action != "StartInstances" and self._subnet.exists():
            request = in_subnet(action, request, self._subnet.read_text().strip())
        answer = self._ask(environ, urlencode(request).encode())
        if token and answer[0].startswith("200"):
            self._answers[(action, token)] = (meaning, answer)
        return answer

    def _ask(self, environ: Environ, body: bytes) -> Answer:
        """Hand a request to moto and take its whole answer."""
        taken: list[tuple[str, list[tuple[str, str]]]] = []

        def start(status: str, headers: list[tuple[str, str]], *_: Any) -> None:
            taken.append((status, headers))

        inner = environ | {"wsgi.input": BytesIO(body), "CONTENT_LENGTH": str(len(body))}
        payload = b"".join(self._inner(inner, start))
        status, headers = taken[-1]
        return status, headers, payload

    def _tell(self, action: str, request: dict[str, str]) -> None:
        instances = [value for name, value in request.items() if name.startswith("InstanceId.")]
        # Nobody listens, or is slow to: the watcher also looks by itself every few seconds.
        with suppress(OSError):
            self._teller.sendto(json.dumps({"action": action, "instances": instances}).encode(), str(self._events))


def in_subnet(action: str, request: dict[str, str], subnet: str) -> dict[str, str]:
    """The request, with the lab's subnet wherever it names none: moto does not take it from a launch template."""
    if action == "RunInstances":
        named = any(name == "SubnetId" or name.endswith(".SubnetId") for name in request)
        return request if named else request | {"SubnetId": subnet}
    wheres = {found.group(0) for name in request if (found := re.match(r"LaunchTemplateConfigs\.\d+\.", name))}
    added: dict[str, str] = {}
    for where in wheres:
        overrides = {found.group(1) for name in request if (found := re.match(rf"{where}Overrides\.(\d+)\.", name))}
        added |= {f"{where}Overrides.{number}.SubnetId": subnet for number in overrides or {"1"}}
    return added | request


def refusal(status: int, code: str, message: str) -> Answer:
    """An error as EC2's query protocol words it."""
    text = (
        f'<?xml version="1.0" encoding="UTF-8"?><Response><Errors><Error><Code>{escape(code)}</Code>'
        f"<Message>{escape(message)}</Message></Error></Errors><RequestID>lab</RequestID></Response>"
    )
    reason = "Internal Server Error" if status == 500 else "Bad Request"
    return f"{status} {reason}", [("Content-Type", "text/xml;charset=UTF-8")], text.encode()


def fleet_without_capacity() -> Answer:
    """CreateFleet succeeds even when no instance could be had: the refusal is inside its answer."""
    text = (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<CreateFleetResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>lab</requestId>'
        "<fleetId>fleet-00000000-0000-0000-0000-000000000000</fleetId><errorSet><item>"
        "<errorCode>InsufficientInstanceCapacity</errorCode><lifecycle>on-demand</lifecycle>"
        "<errorMessage>We currently do not have sufficient capacity.</errorMessage></item></errorSet>"
        "<fleetInstanceSet/></CreateFleetResponse>"
    )
    return "200 OK", [("Content-Type", "text/xml;charset=UTF-8")], text.encode()


def main() -> None:
    """Serve EC2 on the cloud's address: `python -m nodewatch.lab.edge STATE_DIR`."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, run_simple

    class Quiet(WSGIRequestHandler):
        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            """Say nothing: the watcher alone would fill the log."""

    layout = Layout(root=Path(sys.argv[1]))
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    edge = Edge(
        DomainDispatcherApplication(create_backend_app),
        no_capacity=layout.no_capacity,
        subnet=layout.cloud / "subnet",
        events=layout.cloud_socket,
        launches_held=layout.launches_held,
    )
    run_simple(CLOUD_ADDRESS, CLOUD_PORT, edge, threaded=True, request_handler=Quiet)


if __name__ == "__main__":
    main()
