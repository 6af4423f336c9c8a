"""The command as a process: --check-config, and what it says when it cannot start."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nodewatch import __version__


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "nodewatch.controller.main", *arguments]
    return subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)


def test_a_good_configuration(tmp_path: Path) -> None:
    path = tmp_path / "controller.toml"
    path.write_text('[policy]\nmode = "act"\n[[groups]]\nname = "g"\nnodes = ["n[1-4]"]\npartition = "train"\n')
    done = run("--config", str(path), "--check-config")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{path} is valid: mode act, 1 groups\n", "")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[policy]\nmod = 'act'", "policy: unknown key 'mod'; did you mean 'mode'?"),
        ("[policy]\nmode = 'do'", "policy: mode must be one of observe, act, not 'do'"),
        ("x", "is not valid TOML"),
        (None, "does not exist: create it"),
    ],
)
def test_a_bad_configuration_is_one_sentence(tmp_path: Path, text: str | None, says: str) -> None:
    path = tmp_path / "controller.toml"
    if text is not None:
        path.write_text(text)
    for arguments in (("--check-config",), ()):
        done = run("--config", str(path), *arguments)
        assert done.returncode == 2
        assert done.stdout == ""
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"nodewatch-controller: {path}")
        assert says in line


def test_the_version() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"nodewatch-controller {__version__}\n")
