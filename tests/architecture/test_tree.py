"""What holds for the tree as a whole: names, mirrored tests, links, and how tests are written."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
TREES = ("nodewatch", "tests", "train", "slurm_hooks", "prolog_epilog", "packaging", "ansible")
NO_NAMES = {"utils", "util", "common", "helpers", "helper", "manager", "misc"}


def python_files(*trees: str) -> list[Path]:
    return sorted(path for tree in trees for path in (REPOSITORY / tree).rglob("*.py") if "build" not in path.parts)


def test_every_check_has_its_mirrored_test() -> None:
    checks = [path.stem for path in (REPOSITORY / "nodewatch" / "checks").glob("[!_]*.py")]
    assert checks
    missing = [name for name in checks if not (REPOSITORY / "tests" / "checks" / f"test_{name}.py").exists()]
    assert missing == []


def test_every_test_of_a_check_has_its_check() -> None:
    tests = [path.stem.removeprefix("test_") for path in (REPOSITORY / "tests" / "checks").glob("test_[!_]*.py")]
    stray = [name for name in tests if not (REPOSITORY / "nodewatch" / "checks" / f"{name}.py").exists()]
    assert stray == []


def test_no_file_is_named_after_nothing() -> None:
    found = [
        path.relative_to(REPOSITORY)
        for tree in TREES
        for path in (REPOSITORY / tree).rglob("*")
        # The house plan names the role that all hosts have in common so, as Ansible's own examples do.
        if "__pycache__" not in path.parts
        and path.parent.name != "roles"
        and path.stem.removeprefix("_").removeprefix("test_").lower() in NO_NAMES
    ]
    assert found == []


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        path.relative_to(REPOSITORY)
        for path in python_files("nodewatch")
        if ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) is None
    ]
    assert silent == []


def documents() -> list[Path]:
    found = [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")]
    for tree in TREES:
        found += (REPOSITORY / tree).rglob("*.md")
    return sorted(found)


def anchors(path: Path) -> set[str]:
    """The names by which GitHub lets a link point into a page."""
    headings = re.findall(r"^#+ +(.+?)\s*$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_links_lead_somewhere(document: Path) -> None:
    text = re.sub(r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (document.parent / name).resolve() if name else document
        if not path.exists() or (anchor and path.suffix == ".md" and anchor not in anchors(path)):
            broken.append(target)
    assert broken == []


def root_of(node: ast.expr) -> str:
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def patches(path: Path) -> Iterator[str]:
    """Calls that put something of the test's own into a module of ours."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    ours = {"nodewatch"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "nodewatch":
            ours |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            ours |= {a.asname or "nodewatch" for a in node.names if a.name.split(".")[0] == "nodewatch"}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        verb = ast.unparse(node.func)
        if not re.search(r"(^|\.)patch(\.\w+)?$|(^|\.)setattr$|(^|\.)setitem$", verb):
            continue
        target = node.args[0]
        if (isinstance(target, ast.Constant) and str(target.value).startswith("nodewatch.")) or root_of(target) in ours:
            yield f"{path.name}:{node.lineno}: {ast.unparse(node)}"


def test_no_test_patches_our_own_modules() -> None:
    # The rehearsal's refusals (no root, no space, no cgroup2) can be had on no one machine without saying that it is so.
    allowed = REPOSITORY / "tests" / "lab" / "test_command.py"
    found = [patch for path in python_files("tests") if path != allowed for patch in patches(path)]
    assert found == []


def test_a_patch_would_be_seen(tmp_path: Path) -> None:
    path = tmp_path / "test_x.py"
    lines = [
        "from nodewatch.journal import file",
        "import nodewatch.cli.ask as ask",
        "monkeypatch.setattr('nodewatch.journal.file.read', None)",
        "monkeypatch.setattr(file, 'read', None)",
        "mock.patch.object(ask, 'ask')",
        "patch('nodewatch.cli.ask.ask')",
        "setattr(file.Journal, 'append', None)",
        "monkeypatch.setattr(sys, 'argv', [])",
    ]
    path.write_text("\n".join(lines))
    assert [int(found.split(":")[1]) for found in patches(path)] == [3, 4, 5, 6, 7]
