"""The import contracts of setup.cfg hold, and what the hooks import is in every Python."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


def test_the_contracts_hold(tmp_path: Path) -> None:
    program = Path(sys.executable).parent / "lint-imports"
    if not program.exists():
        pytest.skip("import-linter is not installed: pip install -e .[test]")
    argv = [str(program), str(REPOSITORY / "setup.cfg"), "--cache-dir", str(tmp_path)]
    done = subprocess.run(argv, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 kept, 0 broken" in done.stdout


def imported(path: Path) -> set[str]:
    modules: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add("." * node.level + (node.module or ""))
    return modules


def test_the_hooks_need_the_standard_library_alone() -> None:
    modules = imported(REPOSITORY / "nodewatch" / "hooks.py")
    assert modules
    assert {name for name in modules if name.split(".")[0] not in sys.stdlib_module_names} == set()


def test_real_adapters_are_built_where_the_daemons_are_put_together() -> None:
    # `doctor` asks Slurm itself, since it must also work where no controller runs yet.
    # `cluster` makes the nodes that a controller then looks after, and must work before there is one.
    allowed = {"agent/main.py", "controller/main.py", "cli/doctor.py", "cli/cluster.py"}
    for path in sorted((REPOSITORY / "nodewatch").rglob("*.py")):
        name = str(path.relative_to(REPOSITORY / "nodewatch"))
        if name.split("/")[0] in ("clients", "lab") or name in allowed:
            continue
        adapters = {"nodewatch.clients.slurm_commands", "nodewatch.clients.ec2", "nodewatch.clients.munge"}
        assert not imported(path) & adapters, f"{name} imports {imported(path) & adapters}"
