"""The hooks laid out as the package installs them, and an agent that answers as it is told."""

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
Answer = Callable[[socket.socket, bytes], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What one run of a hook left."""

    code: int
    out: str
    err: str
    seconds: float


@dataclass(slots=True, kw_only=True)
class Hooks:
    """Runs the installed executables as processes, as slurmd does: a bare environment."""

    directory: Path
    work: Path
    env: dict[str, str] = field(default_factory=dict)

    @property
    def socket_path(self) -> Path:
        return self.work / "agent.sock"

    @property
    def inbox(self) -> Path:
        return self.work / "inbox"

    @property
    def jobs(self) -> Path:
        return self.work / "jobs"

    @property
    def misses(self) -> Path:
        return self.work / "hook-misses"

    @property
    def settings(self) -> Path:
        return self.work / "hooks.env"

    def run(self, name: str, **variables: str) -> Ran:
        env = {
            "NODEWATCH_AGENT_SOCKET": str(self.socket_path),
            "NODEWATCH_INBOX": str(self.inbox),
            "NODEWATCH_HOOK_MISSES": str(self.misses),
            "NODEWATCH_HOOKS_ENV": str(self.settings),
            "NODEWATCH_JOBS": str(self.jobs),
            **self.env,
            **variables,
        }
        started = time.monotonic()
        done = subprocess.run(
            [str(self.directory / name)], env=env, capture_output=True, text=True, timeout=20, check=False
        )
        seconds = time.monotonic() - started
        return Ran(code=done.returncode, out=done.stdout, err=done.stderr, seconds=seconds)


@pytest.fixture(scope="session")
def hooks_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("installed-hooks")
    ours = [REPOSITORY / "slurm_hooks" / name for name in ("healthcheck", "resume_point")]
    for source in [*(REPOSITORY / "prolog_epilog").iterdir(), *ours]:
        shutil.copy(source, directory / source.name)
    (directory / "nodewatch_train").mkdir()
    for name in ("__init__", "completeness", "crc", "digest", "manifest"):
        shutil.copy(REPOSITORY / "train" / "nodewatch_train" / f"{name}.py", directory / "nodewatch_train")
    shutil.copy(REPOSITORY / "nodewatch" / "hooks.py", directory / "nodewatch_hooks.py")
    return directory


@pytest.fixture
def hooks(hooks_directory: Path, tmp_path: Path) -> Hooks:
    (tmp_path / "inbox").mkdir()
    return Hooks(directory=hooks_directory, work=tmp_path)


@dataclass(slots=True)
class FakeAgent:
    """Listens where the agent would; `questions` holds what was asked, byte by byte."""

    listener: socket.socket
    answer: Answer
    questions: list[bytes] = field(default_factory=list)

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection:
                question = b""
                while not question.endswith(b"\n"):
                    chunk = connection.recv(65536)
                    if not chunk:
                        break
                    question += chunk
                self.questions.append(question)
                try:
                    self.answer(connection, question)
                except OSError:
                    continue  # a hook that gave up closed its end


@pytest.fixture
def agent(hooks: Hooks) -> Iterator[Callable[[bytes | Answer], FakeAgent]]:
    """Start a fake agent that sends these bytes, or does this."""
    listeners: list[socket.socket] = []

    def start(answer: bytes | Answer) -> FakeAgent:
        listener = socket.socket(socket.AF_UNIX)
        # Bound by a relative name: sun_path holds 108 bytes, and a test's directory can be longer.
        here = Path.cwd()
        os.chdir(hooks.work)
        try:
            listener.bind(hooks.socket_path.name)
        finally:
            os.chdir(here)
        listener.listen(8)
        listeners.append(listener)
        act = answer if callable(answer) else (lambda connection, _: connection.sendall(answer))
        fake = FakeAgent(listener, act)
        threading.Thread(target=fake.serve, daemon=True).start()
        return fake

    yield start
    for listener in listeners:
        if listener.fileno() >= 0:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
