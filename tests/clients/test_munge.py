"""MUNGE through libmunge and a munged of our own."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nodewatch.clients.munge import Munge
from nodewatch.errors import ChannelError

MUNGED = shutil.which("munged") or "/usr/sbin/munged"
pytestmark = pytest.mark.skipif(not Path(MUNGED).exists(), reason="munged is not installed: apt-get install munge")


@contextmanager
def munged(home: Path) -> Iterator[Path]:
    key = home / "key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    argv = [MUNGED, "--foreground", "--force", f"--socket={home / 'socket'}", f"--key-file={key}"]
    argv += [f"--pid-file={home / 'pid'}", f"--log-file={home / 'log'}", f"--seed-file={home / 'seed'}"]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 10
        while not (home / "socket").exists():
            assert time.monotonic() < end, "munged did not start"
            time.sleep(0.01)
        yield home / "socket"
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(scope="module")
def munge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Munge]:
    with munged(tmp_path_factory.mktemp("munge")) as socket:
        yield Munge(socket=socket)


@pytest.mark.parametrize("payload", [b"", b"x", b"\0\xff" * 1000, "ü".encode(), b"a" * 500_000])
def test_what_was_sealed_comes_out(munge: Munge, payload: bytes) -> None:
    assert munge.decode(munge.encode(payload)) == (payload, os.geteuid(), os.getegid())


def test_a_copy_is_refused(munge: Munge) -> None:
    credential = munge.encode(b"once")
    munge.decode(credential)
    with pytest.raises(ChannelError, match="it was used before"):
        munge.decode(credential)


def test_a_changed_one_is_refused(munge: Munge) -> None:
    credential = munge.encode(b"hello")
    body = bytearray(base64.b64decode(credential.removeprefix("MUNGE:").rstrip("\0").rstrip(":")))
    body[-1] ^= 1
    with pytest.raises(ChannelError, match="refused"):
        munge.decode(f"MUNGE:{base64.b64encode(bytes(body)).decode()}:")


def test_another_key_is_refused(munge: Munge, tmp_path: Path) -> None:
    with munged(tmp_path) as socket, pytest.raises(ChannelError, match=r"use the same munge\.key"):
        munge.decode(Munge(socket=socket).encode(b"stranger"))


@given(st.text(max_size=200))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_text_that_is_no_credential_is_one_sentence(munge: Munge, text: str) -> None:
    with pytest.raises(ChannelError, match="a MUNGE credential was refused"):
        munge.decode(text)


def test_no_munged_is_one_sentence(tmp_path: Path) -> None:
    lonely = Munge(socket=tmp_path / "nowhere")
    with pytest.raises(ChannelError, match=r"munged cannot be reached: start munge\.service"):
        lonely.encode(b"x")
    with pytest.raises(ChannelError, match="refused"):
        lonely.decode("MUNGE:AAAA:")


def test_too_much_is_one_sentence(munge: Munge) -> None:
    with pytest.raises(ChannelError, match="cannot be sealed"):
        munge.encode(b"x" * 4_000_000)


def test_no_library_is_one_sentence() -> None:
    with pytest.raises(ChannelError, match="install the package munge"):
        Munge(library="libmunge-that-is-not-there.so")


def test_threads(munge: Munge) -> None:
    wrong: list[object] = []

    def work(number: int) -> None:
        for turn in range(50):
            payload = f"{number}:{turn}".encode()
            if munge.decode(munge.encode(payload))[0] != payload:
                wrong.append(payload)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
