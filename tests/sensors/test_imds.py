"""EC2's instance metadata: a server on the loopback that plays IMDSv2, asked by the real probe."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewatch.checks.ec2_events import Thresholds as Near
from nodewatch.checks.ec2_events import ec2_events
from nodewatch.checks.ec2_impaired import ec2_impaired
from nodewatch.checks.ec2_notices import Thresholds, ec2_notices
from nodewatch.model.cloud_samples import Ec2Sample
from nodewatch.sensors import imds_probe
from nodewatch.sensors.child import Ended
from nodewatch.sensors.imds import ImdsSensor, is_ec2
from nodewatch.sensors.reading import Reading

from .fabric_tree import read

INSTANCE = "i-0123456789abcdef0"
NOW = 1_772_359_200.0
"""2026-03-01 10:00:00 UTC."""
EVENT = {
    "NotBefore": "1 Mar 2026 10:30:00 GMT",
    "NotAfter": "1 Mar 2026 12:30:00 GMT",
    "Code": "system-reboot",
    "Description": "scheduled reboot",
    "EventId": "instance-event-0d59937288b749b32",
    "State": "active",
}
OVER = EVENT | {"EventId": "instance-event-1", "Description": "[Completed] scheduled reboot", "State": "completed"}
LATER = EVENT | {"EventId": "instance-event-2", "NotBefore": "9 Mar 2026 10:00:00 GMT"}


class Imds:
    """The metadata service: `pages` by path, `token_status` for the PUT, and what was asked."""

    def __init__(self) -> None:
        self.pages: dict[str, str] = {
            "instance-id": INSTANCE,
            "instance-life-cycle": "spot",
            "events/maintenance/scheduled": "[]",
        }
        self.token_status = 200
        self.status: int | None = None
        self.tokens = 0
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                is_right = self.path == "/latest/api/token" and int(
                    self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
                )
                service.tokens += 1
                self.say(service.token_status if is_right else 400, f"token-{service.tokens}")

            def do_GET(self) -> None:
                if self.headers.get("X-aws-ec2-metadata-token") != f"token-{service.tokens}":
                    self.say(401, "")
                    return
                page = service.pages.get(self.path.removeprefix("/latest/meta-data/"))
                self.say(service.status or (404 if page is None else 200), page or "<html>no such thing</html>")

            def say(self, status: int, text: str) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def imds() -> Iterator[Imds]:
    made = Imds()
    yield made
    made.close()


def sensor(url: str, **options: Any) -> ImdsSensor:
    return ImdsSensor(url, is_ec2=True, clock=lambda: NOW, **options)


def sample(reading: Reading) -> Ec2Sample:
    assert isinstance(reading.sample, Ec2Sample), reading
    return reading.sample


def judged(reading: Reading) -> list[tuple[str, str, str, str]]:
    found = sample(reading)
    findings = [*ec2_notices(found, Thresholds()), *ec2_events(found, Near()), *ec2_impaired(found)]
    return [(f.fault, f.subject, f.severity.word, f.remedy.word) for f in findings]


@pytest.mark.parametrize(
    ("pages", "expected"),
    [
        ({}, []),
        (
            {"spot/instance-action": {"action": "terminate", "time": "2026-03-01T10:02:00Z"}},
            [("ec2.spot_interruption", INSTANCE, "fatal", "replace")],
        ),
        (
            {"events/recommendations/rebalance": {"noticeTime": "2026-03-01T09:59:00Z"}},
            [("ec2.rebalance_recommended", INSTANCE, "warn", "replace")],
        ),
        # Near: jobs are kept away. Far: it is only told. Over: it is no event any more.
        (
            {"events/maintenance/scheduled": [EVENT]},
            [("ec2.event", f"{INSTANCE} instance-event-0d59937288b749b32", "degraded", "none")],
        ),
        (
            {"events/maintenance/scheduled": [LATER, OVER]},
            [("ec2.event", f"{INSTANCE} instance-event-2", "warn", "none")],
        ),
        (
            {"events/maintenance/scheduled": [LATER | {"Code": "instance-retirement"}]},
            [("ec2.event", f"{INSTANCE} instance-event-2", "degraded", "replace")],
        ),
    ],
)
def test_what_the_service_says(imds: Imds, pages: dict[str, Any], expected: list[Any]) -> None:
    imds.pages |= {path: json.dumps(page) for path, page in pages.items()}
    assert judged(read(sensor(imds.url))) == expected


def test_how_near_it_is_stands_in_the_evidence(imds: Imds) -> None:
    imds.pages["events/maintenance/scheduled"] = json.dumps([EVENT])
    (finding,) = ec2_events(sample(read(sensor(imds.url))), Near())
    assert (finding.evidence["seconds_left"], finding.evidence["source"]) == (1800.0, "instance metadata")


@pytest.mark.parametrize(
    ("life_cycle", "asked"), [("spot", 4), ("interruptible-capacity-reservation", 4), ("on-demand", 2)]
)
def test_spot_is_asked_every_time_and_others_once_a_minute(imds: Imds, life_cycle: str, asked: int) -> None:
    imds.pages["instance-life-cycle"] = life_cycle
    asks = sensor(imds.url)
    for now in (0.0, 5.0, 50.0, 60.0):
        assert judged(read(asks, now)) == []
    assert imds.tokens == asked


def test_a_service_that_is_switched_off_does_not_apply_and_is_left_alone(imds: Imds) -> None:
    imds.token_status = 403
    asks = sensor(imds.url)
    assert [read(asks, now).not_applicable is not None for now in (0.0, 60.0, 299.0)] == [True, True, True]
    assert imds.tokens == 1
    imds.token_status = 200
    assert judged(read(asks, 301.0)) == []


@pytest.mark.parametrize("token_status", [400, 404, 503])
def test_a_service_without_tokens_is_unknown(imds: Imds, token_status: int) -> None:
    imds.token_status = token_status
    error = read(sensor(imds.url)).error or ""
    assert str(token_status) in error and "imds_url" in error


@pytest.mark.parametrize(
    ("path", "page"),
    [
        ("spot/instance-action", "soon"),
        ("spot/instance-action", "[]"),
        ("spot/instance-action", '{"action": "explode", "time": "2026-03-01T10:02:00Z"}'),
        ("spot/instance-action", '{"action": "termi'),
        ("events/maintenance/scheduled", "{}"),
        ("events/maintenance/scheduled", '[{"Cod": 1}]'),
        ("events/maintenance/scheduled", ""),
    ],
)
def test_what_is_not_understood_is_unknown(imds: Imds, path: str, page: str) -> None:
    imds.pages[path] = page
    assert read(sensor(imds.url)).error


def test_a_service_that_is_busy_is_unknown_and_asked_again(imds: Imds) -> None:
    asks = sensor(imds.url)
    imds.status = 503
    assert "503" in (read(asks, 0.0).error or "")
    imds.status = None
    assert "503" in (read(asks, 5.0).error or "")
    assert judged(read(asks, 10.0)) == []


def test_nobody_listens() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        error = read(sensor(f"http://127.0.0.1:{held.getsockname()[1]}")).error or ""
    assert "Connection refused" in error and "imds_url" in error


def test_a_token_that_never_arrives_is_the_hop_limit() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        error = read(sensor(f"http://127.0.0.1:{silent.getsockname()[1]}")).error or ""
    assert "hop limit" in error


def test_a_probe_that_hangs(imds: Imds) -> None:
    asks = sensor(imds.url, deadline_s=0.1, argv=("sh", "-c", "sleep 60", "sh"))
    for now in (None, None):
        assert "0.1 s" in (read(asks, now).error or "")
    asks.close()


def test_where_it_does_not_apply() -> None:
    never = ("false",)
    assert read(ImdsSensor("", is_ec2=True, argv=never)).not_applicable
    assert read(ImdsSensor("http://169.254.169.254", is_ec2=False, argv=never)).not_applicable
    # Somebody who writes another address means it.
    assert read(ImdsSensor("http://127.0.0.1:9", is_ec2=False, argv=never)).error


def test_the_end_of_a_capacity_block_is_known_without_the_service(imds: Imds) -> None:
    ends = "2026-03-01T10:35:00Z"
    block = ("ec2.capacity_block_ends", "capacity block", "degraded", "human")
    assert judged(read(sensor("", capacity_block_ends=ends))) == [block]
    assert judged(read(sensor(imds.url, capacity_block_ends=ends))) == [block]
    assert judged(read(sensor(imds.url, capacity_block_ends="2026-03-02T09:00:00+00:00")))[0][2] == "info"
    assert judged(read(sensor(imds.url, capacity_block_ends="2026-05-01T09:00:00Z"))) == []


@pytest.mark.parametrize(
    ("vendor", "bios", "expected"),
    [("Amazon EC2", "1.0", True), ("Xen", "4.11.amazon", True), ("QEMU", "rel-1.16", False), ("", "", False)],
)
def test_whose_firmware_it_is(tmp_path: Path, vendor: str, bios: str, expected: bool) -> None:
    (tmp_path / "sys_vendor").write_text(vendor + "\n")
    (tmp_path / "bios_version").write_text(bios + "\n")
    assert is_ec2(tmp_path) is expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", (200, b"[]")),
        (b"HTTP/1.0 404 Not Found\r\n\r\n", (404, b"")),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n[]", (0, b"")),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[]\r\n", (0, b"")),
        (b"HTTP/1.1 200 OK\r\nContent-Le", (0, b"")),
        (b"SSH-2.0-OpenSSH_9.6\r\n", (0, b"")),
        (b"", (0, b"")),
    ],
)
def test_answers_that_are_whole(data: bytes, expected: tuple[int, bytes]) -> None:
    assert imds_probe.parse(data) == expected


@given(st.binary())
def test_no_answer_raises(data: bytes) -> None:
    imds_probe.parse(data)
    imds_probe.parse(b"HTTP/1.1 " + data)


@given(st.text())
def test_no_output_of_the_probe_raises(text: str) -> None:
    asks = ImdsSensor("http://127.0.0.1", is_ec2=True, argv=("printf", "%s", "x"))
    lines = f"instance-id 200 00\ninstance-life-cycle 404 -\nevents/maintenance/scheduled 200 {text}\n"
    for output in (text, f"! {text}", lines):
        reading = asks.answer(Ended(returncode=0, stdout=output, stderr=""), 0.0)
        assert reading.error or reading.not_applicable
