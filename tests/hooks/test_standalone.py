"""The hooks module stands alone: standard library only, and of that only what starts fast."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import REPOSITORY, Hooks

SLOW = {"json", "re", "enum", "socket", "pathlib", "subprocess", "contextlib", "collections", "typing", "dataclasses"}


def test_imports_are_of_the_standard_library() -> None:
    tree = ast.parse((REPOSITORY / "nodewatch" / "hooks.py").read_text())
    imported: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            imported.add(str(node.module))

    assert set() == imported - sys.stdlib_module_names


@pytest.mark.parametrize("hook", ["prolog", "prolog_slurmctld"])
def test_nothing_slow_is_imported(hooks: Hooks, hook: str) -> None:
    done = subprocess.run(
        ["/usr/bin/python3", "-I", "-S", "-X", "importtime", str(hooks.directory / hook)],
        env={"NODEWATCH_AGENT_SOCKET": str(hooks.socket_path), "NODEWATCH_HOOK_MISSES": str(hooks.misses)},
        capture_output=True,
        text=True,
        check=False,
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "import time:" in line}

    assert "nodewatch_hooks" in imported
    assert set() == imported & SLOW


def test_the_public_modules_serve_where_the_fast_ones_are_missing(hooks: Hooks, tmp_path: Path) -> None:
    """Another interpreter may not have them; the answer has to be the same."""
    program = f"""
import sys
sys.path.insert(0, {str(hooks.directory)!r})
sys.modules["_json"] = None
import nodewatch_hooks
print(nodewatch_hooks._from_json('{{"allow": false}}'))
try:
    nodewatch_hooks._from_json("nonsense")
except ValueError:
    print("refused")
"""
    done = subprocess.run(["/usr/bin/python3", "-I", "-c", program], capture_output=True, text=True, check=False)

    assert done.stdout == "{'allow': False}\nrefused\n", done.stderr


@pytest.mark.parametrize("path", sorted((REPOSITORY / "prolog_epilog").iterdir()), ids=lambda path: path.name)
def test_executables_are_executable_and_isolated(path: Path) -> None:
    assert path.stat().st_mode & 0o111
    assert path.read_text().startswith("#!/usr/bin/python3 -IS\n")
