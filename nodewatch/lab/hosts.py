"""The VPC's private DNS: one hosts file, bound into every machine."""

import os
from collections.abc import Iterable
from pathlib import Path

from nodewatch.lab.ec2 import Instance
from nodewatch.lab.layout import CLOUD_ADDRESS, HEAD_ADDRESS


def render_hosts(rows: Iterable[Instance]) -> str:
    """Every name that resolves: a node's points at the running instance that bears its tag, the newest if two do."""
    lines = ["127.0.0.1 localhost", f"{CLOUD_ADDRESS} cloud", f"{HEAD_ADDRESS} head"]
    bearer: dict[str, str] = {}
    for row in rows:
        if row.state in ("pending", "running") and row.address:
            lines.append(f"{row.address} ip-{row.address.replace('.', '-')}")
            if row.node:
                bearer[row.node] = row.address
    lines += [f"{address} {name}" for name, address in sorted(bearer.items())]
    return "\n".join(lines) + "\n"


def write_hosts(path: Path, rows: Iterable[Instance]) -> None:
    """Rewrite the file in place: a new inode would not show in the machines, which have this one bound."""
    text = render_hosts(rows).encode()
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if os.pread(handle, len(text) + 1, 0) == text:
            return
        # Padded to the old length first, then cut: a reader in between sees whole lines, never a torn one.
        old = os.fstat(handle).st_size
        os.pwrite(handle, text + b"\n" * max(0, old - len(text)), 0)
        os.ftruncate(handle, len(text))
    finally:
        os.close(handle)
