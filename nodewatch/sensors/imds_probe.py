"""Asks EC2's instance metadata service (IMDSv2) for the paths that are its arguments: run as a program.

    imds_probe.py HOST PORT PATH...

A token is asked for first, good for a minute. Each path is answered by a line `path status body`, the body in hex. When
the token does not come, the one line is `! connect reason`, `! token reason` or `! token status 403`. It is a program of
its own because a packet filter may swallow every packet. Starts with `-I -S`: the standard library only, and little of it,
since on a spot instance it runs every five seconds.
"""

from __future__ import annotations

import _socket  # socket itself takes as long to load as the interpreter
import sys

_STEP_S = 1.5
"""For one step; the service is on the same host and answers within milliseconds."""
_MOST = 65536


class _RefusedError(Exception):
    """No answer, with the step at which it failed."""


def ask(host: str, port: int, method: str, path: str, header: str) -> tuple[int, bytes]:
    """Status and body; status 0 for an answer that is no HTTP or not whole. Raises _RefusedError without an answer."""
    sock = _socket.socket(_socket.AF_INET6 if ":" in host else _socket.AF_INET, _socket.SOCK_STREAM, 0)
    step = "connect"
    try:
        sock.settimeout(_STEP_S)
        sock.connect((host, port))
        step = "token"
        sock.sendall(
            f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{header}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode(
                "ascii", "replace"
            )
        )
        data = b""
        while len(data) < _MOST and (chunk := sock.recv(_MOST)):
            data += chunk
    except OSError as error:
        raise _RefusedError(f"{step} {error.strerror or error}") from error
    finally:
        sock.close()
    return parse(data)


def parse(data: bytes) -> tuple[int, bytes]:
    """Status and body of an HTTP answer; status 0 for what is none, or not whole."""
    head, separator, body = data.partition(b"\r\n\r\n")
    words = head.split(b"\r\n")[0].split(b" ")
    if not separator or len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
        return 0, b""
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        name, value = name.strip().lower(), value.strip()
        if name == b"transfer-encoding" or (name == b"content-length" and value != b"%d" % len(body)):
            return 0, b""
    return int(words[1][:3]), body


def main() -> None:
    """One line a path, or one line that says why there is none."""
    host, port, paths = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
    try:
        status, token = ask(host, port, "PUT", "/latest/api/token", "X-aws-ec2-metadata-token-ttl-seconds: 60")
        if status != 200 or not token:
            print("! token status", status)
            return
        header = f"X-aws-ec2-metadata-token: {token.decode('ascii', 'replace').strip()}"
        for path in paths:
            status, body = ask(host, port, "GET", f"/latest/meta-data/{path}", header)
            print(path, status, body.hex())
    except _RefusedError as error:
        print("!", error)


if __name__ == "__main__":
    main()
