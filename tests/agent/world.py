"""The agent's surroundings, all of them real: a controller that listens, a node's files, the agent's process on it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from nodewatch.clients.munge import Munge
from nodewatch.errors import ChannelError

ROOT = Path(__file__).resolve().parents[2]
XID_79 = "NVRM: Xid (PCI:0000:53:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."


def until(condition: Callable[[], Any], seconds: float = 10.0, what: str = "it") -> Any:
    """Wait for `condition` to be true and give its value."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.005)
    raise AssertionError(f"{what} did not happen within {seconds} s")


class FakeController:
    """Listens as the controller does, accepts what it is sent once, and keeps it."""

    def __init__(self, munge: Munge, port: int = 0) -> None:
        self.messages: list[dict[str, Any]] = []
        self.events: list[dict[str, Any]] = []
        self.received_at: dict[str, float] = {}
        self.requests: list[dict[str, Any]] = []
        self.cluster: dict[str, Any] = {}
        self.accepts = True
        self.is_closed = False
        controller = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                sealed = self.rfile.read(int(self.headers["Content-Length"])).decode()
                if controller.is_closed:
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                try:
                    payload, uid, _ = munge.decode(sealed)
                except ChannelError as error:
                    self._answer(401, str(error).encode())
                    return
                assert uid == os.geteuid()
                self._answer(200, json.dumps(controller.take(json.loads(payload))).encode())

            def _answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def take(self, message: dict[str, Any]) -> dict[str, Any]:
        self.messages.append(message)
        if not self.accepts:
            return {"v": 1, "accepted": [], "requests": []}
        for event in message["events"]:
            if event["id"] not in self.received_at:
                self.received_at[event["id"]] = time.monotonic()
                self.events.append(event)
        accepted = [event["id"] for event in message["events"]]
        return {"v": 1, "accepted": accepted, "requests": list(self.requests), "cluster": self.cluster}

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in list(self.events) if event["kind"] == kind]

    def faults(self) -> set[str]:
        """All faults of which a verdict event told."""
        verdicts = self.of_kind("verdict")
        return {finding["fault"] for event in verdicts for finding in event["verdict"]["findings"]}

    def close(self) -> None:
        self.is_closed = True
        self._server.shutdown()
        self._server.server_close()


class Node:
    """One node's directory with a kernel log, and the agent's process on it."""

    def __init__(self, home: Path, munge_socket: Path) -> None:
        self.home = home
        self.kmsg = home / "kmsg"
        os.mkfifo(self.kmsg)
        self.socket = home / "agent.sock"
        self.settings: dict[str, Any] = {
            "node_name": "n1",
            "kmsg": str(self.kmsg),
            "state_dir": str(home / "state"),
            "socket": str(self.socket),
            "hook_misses": str(home / "hook-misses"),
            "jobs_dir": str(home / "jobs"),
            "munge_socket": str(munge_socket),
            "instance_id_file": str(home / "instance-id"),
            "slurm_user": "root",
            "nvml": "off",
            "efa_devices": 0,
            "imds_url": "",
            "metrics_port": 0,
            "heartbeat_s": 0.5,
            "self_drain": False,
        }
        (home / "instance-id").write_text("i-0123456789abcdef0\n")
        self.deep: dict[str, Any] = {
            **dict.fromkeys(("dcgm", "nccl", "fi_info", "fi_pingpong", "cpu", "memory", "disk"), "off"),
            "lock": str(home / "deep.lock"),
            "own_scope": False,
        }
        self.tables = ""
        self.environment: dict[str, str] = {}
        self.process: subprocess.Popen[bytes] | None = None
        self._sequence = 0
        self._pipe = os.open(self.kmsg, os.O_RDWR | os.O_NONBLOCK)

    def start(self) -> None:
        config = self.home / "agent.toml"
        lines = [f"{key} = {json.dumps(value)}" for key, value in self.settings.items()]
        deep = ["[deep]", *(f"{key} = {json.dumps(value)}" for key, value in self.deep.items())]
        config.write_text("\n".join([*lines, *deep]) + "\n" + self.tables)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "nodewatch.agent.main", "--config", str(config)],
            cwd=ROOT,
            env={**os.environ, **self.environment},
            stderr=(self.home / "agent.log").open("ab"),
        )
        process = self.process
        until(lambda: self._listens() or process.poll() is not None, what="the start of the agent")
        assert process.poll() is None, self.log()

    def _listens(self) -> bool:
        try:
            self.ask("healthcheck")
        except OSError:
            return False
        return True

    def stop(self) -> float:
        """SIGTERM; how many seconds it took."""
        assert self.process is not None
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(10) == 0, self.log()
        return time.monotonic() - began

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def log(self) -> str:
        path = self.home / "agent.log"
        return path.read_text() if path.exists() else ""

    def kernel_says(self, text: str) -> float:
        """Write one record and return when (monotonic)."""
        self._sequence += 1
        os.write(self._pipe, f"4,{self._sequence},{self._sequence * 1000},-;{text}\n".encode())
        return time.monotonic()

    def ask_raw(self, line: bytes, timeout: float = 2.0) -> bytes:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout)
            connection.connect(str(self.socket))
            connection.sendall(line)
            answer = b""
            while chunk := connection.recv(65536):
                answer += chunk
            return answer

    def ask(self, ask: str, **job: str) -> dict[str, Any]:
        request = {"v": 1, "ask": ask, **({"job": job} if job else {})}
        answer: dict[str, Any] = json.loads(self.ask_raw(json.dumps(request).encode() + b"\n"))
        return answer

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()
        os.close(self._pipe)
