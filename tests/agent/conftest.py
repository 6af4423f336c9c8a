"""Fixtures of the agent's tests: a munged with its own key, a controller, a node."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodewatch.clients.munge import Munge

from .world import FakeController, Node, until


@pytest.fixture(scope="session")
def munge_socket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The socket of a munged of our own, with a key of its own."""
    munged = shutil.which("munged") or "/usr/sbin/munged"
    if not Path(munged).exists():
        pytest.skip("munged is not installed: apt-get install munge")
    home = tmp_path_factory.mktemp("munge")
    key = home / "key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    argv = [munged, "--foreground", "--force", f"--socket={home / 'socket'}", f"--key-file={key}"]
    argv += [f"--pid-file={home / 'pid'}", f"--log-file={home / 'log'}", f"--seed-file={home / 'seed'}"]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until((home / "socket").exists, what="the start of munged")
        yield home / "socket"
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture
def munge(munge_socket: Path) -> Munge:
    return Munge(socket=munge_socket)


@pytest.fixture
def controller(munge: Munge) -> Iterator[FakeController]:
    fake = FakeController(munge)
    yield fake
    with contextlib.suppress(OSError):
        fake.close()


@pytest.fixture
def node(tmp_path: Path, munge_socket: Path) -> Iterator[Node]:
    made = Node(tmp_path, munge_socket)
    yield made
    made.close()
