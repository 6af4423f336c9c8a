"""What a daemon tells systemd, by the protocol of sd_notify(3): ready, alive, what it is doing, stopping."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping


class Notifier:
    """Sends state to the service manager; does nothing where there is none. Never raises and never blocks."""

    def __init__(self, address: str | None) -> None:
        """`address` is the text of NOTIFY_SOCKET: a path, or a name that begins with @; None without a manager."""
        self._address = None
        self._socket: socket.socket | None = None
        if address and address[0] in "/@":
            # A leading @ stands for the zero byte of an abstract socket.
            self._address = "\0" + address[1:] if address[0] == "@" else address
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Notifier:
        """The notifier that systemd described in NOTIFY_SOCKET."""
        return cls(environ.get("NOTIFY_SOCKET"))

    def ready(self) -> None:
        """Start-up is done: units that wait for this one may start."""
        self._send("READY=1")

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._send("STATUS=" + text.replace("\n", " "))

    def watchdog(self) -> None:
        """The main loop is alive. To be called by that loop alone, or a hung loop would never be restarted."""
        self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """The end was asked for and is under way."""
        self._send("STOPPING=1")

    def close(self) -> None:
        """Release the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, text: str) -> None:
        if self._socket is None or self._address is None:
            return
        # A manager that is restarting drops a message: the next one comes soon enough.
        with contextlib.suppress(OSError):
            self._socket.sendto(text.encode("utf-8"), self._address)


def watchdog_interval_s(environ: Mapping[str, str] = os.environ, *, pid: int | None = None) -> float | None:
    """How often, in seconds, `Notifier.watchdog` is to be called: half of WatchdogSec; None when no watchdog waits for us."""
    try:
        usec = int(environ["WATCHDOG_USEC"])
        meant_for = int(environ.get("WATCHDOG_PID") or (pid or os.getpid()))
    except (KeyError, ValueError):
        return None
    # A child inherits the variables and must not answer for its parent.
    if usec <= 0 or meant_for != (os.getpid() if pid is None else pid):
        return None
    return usec / 1e6 / 2
